# Copyright 2026 the pruned_perception developers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""A device that is not the CPU, where there is none: `cuda:0` in name, the CPU in fact.

A mode that hears every call of PyTorch marks the tensors that are on the device, passes the mark on
to what is computed from them, and raises where a call mixes them with others, as CUDA does. What
may be mixed there may be mixed here: numbers (tensors without dimensions), indices, and copies. A
tensor on the device has no NumPy array.

It cannot see what a kernel does: speed, memory, and the last digits of sums are another matter.
"""

from __future__ import annotations

from typing import Any

import torch
import torch._dynamo  # before anything here is replaced
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakTensorKeyDictionary

DEVICE = torch.device('cuda', 0)

_COPIES = {Tensor.copy_, Tensor.set_, torch._has_compatible_shallow_copy_type}
_INDEXING = {
    Tensor.__getitem__, Tensor.__setitem__, Tensor.index_put_, torch.index_put,
}  # fmt: skip
_NO_ARRAYS = {Tensor.numpy, Tensor.__array__}
_FROM_MEMORY = {torch.from_numpy, torch.frombuffer}


class OtherDevice(TorchFunctionMode):
    """Tensors on `cuda:0`, by their marks."""

    def __init__(self) -> None:
        super().__init__()
        self.marked: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def __enter__(self) -> OtherDevice:
        super().__enter__()
        # Parameters are made of tensors by a call that no mode hears.
        self._make_subclass = make = Tensor._make_subclass

        def marking(cls: Any, data: Tensor, requires_grad: bool = False, **kwargs: Any) -> Any:
            made = make(cls, data, requires_grad, **kwargs)
            return self.mark(made) if self.has(data) else made

        Tensor._make_subclass = staticmethod(marking)
        return self

    def __exit__(self, *args: Any) -> None:
        Tensor._make_subclass = self._make_subclass
        super().__exit__(*args)

    def has(self, tensor: Tensor) -> bool:
        return tensor in self.marked

    def mark(self, values: Any) -> Any:
        """Mark all tensors in `values`."""
        for each in tree_flatten(values)[0]:
            if isinstance(each, Tensor):
                self.marked[each] = True
        return values

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, '__name__', '')
        if func == Tensor.data.__set__:
            func(*args)
            if self.has(args[1]):
                self.mark(args[0])
            else:
                self.marked.pop(args[0], None)
            return None
        if func == Tensor.device.__get__:
            return DEVICE if self.has(args[0]) else func(*args)
        if func == Tensor.is_cuda.__get__:
            return self.has(args[0])
        if func == Tensor.is_cpu.__get__:
            return not self.has(args[0])
        if func == Tensor.grad.__get__:
            found = func(*args)
            return self.mark(found) if found is not None and self.has(args[0]) else found
        if name == '__deepcopy__':  # whose other argument is all that was copied before
            found = func(*args)
            return self.mark(found) if self.has(args[0]) else found
        if func is Tensor.cpu:
            return self._copied(func, args, {}) if self.has(args[0]) else func(*args, **kwargs)
        if func is Tensor.cuda:
            return self.mark(self._copied(func, args[:1], {}))
        if func is Tensor.to:
            return self._to(args, kwargs)
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        here = [each for each in tensors if self.has(each)]
        if func in _NO_ARRAYS and here:
            raise TypeError(f"can't convert {DEVICE} device type tensor to numpy")
        on_device = bool(here)
        if 'device' in kwargs and kwargs['device'] is not None:
            wanted = torch.device(kwargs['device'])
            on_device = wanted.type == DEVICE.type
            if on_device:
                kwargs['device'] = 'cpu'
        elif func in _FROM_MEMORY:
            on_device = False
        if here and func not in _COPIES and name not in ('__get__', '__set__'):
            elsewhere = [
                each
                for each in tensors
                if not self.has(each) and each.dim() and self._counts(func, each)
            ]
            if elsewhere:
                raise RuntimeError(
                    f'Expected all tensors to be on the same device, but found at least two '
                    f'devices, {DEVICE} and cpu! ({name}, {tuple(elsewhere[0].shape)})'
                )
        result = func(*args, **kwargs)
        if func in _COPIES or func in (Tensor.__setitem__,):
            return result
        if on_device:
            self.mark(result)
        return result

    def _counts(self, func: Any, tensor: Tensor) -> bool:
        """Whether a tensor must be on the device: indices need not."""
        return not (func in _INDEXING and tensor.dtype in (torch.bool, torch.int64, torch.uint8))

    def _to(self, args: Any, kwargs: dict[str, Any]) -> Tensor:
        tensor, *rest = args
        target = self.has(tensor)
        forwarded = []
        for each in rest:
            if isinstance(each, torch.device | str):
                target = torch.device(each).type == DEVICE.type
            elif isinstance(each, Tensor):
                target = self.has(each)
                forwarded.append(each.dtype)
            else:
                forwarded.append(each)
        if kwargs.get('device') is not None:
            target = torch.device(kwargs['device']).type == DEVICE.type
        kwargs.pop('device', None)
        forwarded = [each for each in forwarded if isinstance(each, torch.dtype)]
        moved = target != self.has(tensor)
        result = Tensor.to(tensor, *forwarded, **kwargs) if forwarded or kwargs else tensor
        if moved:
            if result is tensor:
                result = tensor.clone()
            return self.mark(result) if target else result
        return self.mark(result) if target else result

    def _copied(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        return args[0].clone()
