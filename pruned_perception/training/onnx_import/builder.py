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

"""Values and nodes of an ONNX graph on their way into a torch.fx graph.

Each node is run as soon as it is there, on two examples: one with the batch of the file and one
with twice as many images. What does not depend on the inputs (shapes included: those of the first
example) is computed at once and stays a constant. Where the two differ is the axis that counts the
images; so sizes that the exporter wrote down are told from those that must follow the batch.

Operations that only move elements wait until somebody needs their result: if a chain of them comes
to picking channels by index, as shuffles and splits do, one `Take` stands for all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.take import Take


class OnnxImportError(PruningError):
    """An ONNX file that cannot be imported; says which operator of which node, and why."""


@dataclass(eq=False)
class Value:
    """A tensor of the graph: constant, made by a node, or waiting to be."""

    constant: Tensor | None = None
    node: fx.Node | None = None
    single: Tensor | None = None
    """Example with the batch of the file; dropped after its last use."""
    double: Tensor | None = None
    """Example with twice the batch; None where that cannot be computed."""
    shape: tuple[int, ...] = ()
    batch: int | None = None
    """Axis that counts the images."""
    move: Move | None = None
    made_by: nn.Module | None = None
    readers: int = 0
    """Nodes, and outputs of the network, that have yet to read it."""

    def __post_init__(self) -> None:
        """Note the shape."""
        if self.constant is not None:
            self.single = self.double = self.constant
        assert self.single is not None
        self.shape = tuple(self.single.shape)
        if self.double is not None and self.double.ndim == self.single.ndim:
            pairs = enumerate(zip(self.shape, self.double.shape, strict=True))
            self.batch = next((axis for axis, (one, two) in pairs if one != two), None)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


@dataclass(frozen=True, eq=False)
class Move:
    """How a value is made of another one by moving elements."""

    base: Value
    """The last one before that is not made by moving."""
    parent: Value
    positions: Tensor
    """Of each element, its place in the flattened base."""
    function: Callable[..., Tensor]
    arguments: tuple[Any, ...]
    place: str
    """Name of the ONNX node."""


@dataclass(frozen=True, eq=False)
class Node:
    """One node of the ONNX graph, with the values that it reads (None: left out)."""

    operator: str
    name: str
    inputs: tuple[Value | None, ...]
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int

    def refuse(self, why: str) -> OnnxImportError:
        """Return the error that says why this node cannot be taken."""
        return OnnxImportError(f'node {self.name!r} ({self.operator}): {why}')

    def input(self, index: int) -> Value:
        """Return an input that must be there."""
        if (value := self.optional(index)) is None:
            raise self.refuse(f'input {index} is missing')
        return value

    def optional(self, index: int) -> Value | None:
        """Return an input, or None."""
        return self.inputs[index] if index < len(self.inputs) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute; text as str."""
        return self.attributes.get(name, default)

    def constant(self, index: int) -> Tensor | None:
        """Return an input that must not depend on the network's; None where it is left out."""
        value = self.optional(index)
        if value is None:
            return None
        if value.constant is None:
            raise self.refuse(
                f'its input {index} depends on the picture; only what is known beforehand is taken'
            )
        return value.constant

    def numbers(self, attribute: str, index: int) -> list[int] | None:
        """Return integers given as an attribute or, in newer opsets, as an input."""
        if (given := self.attribute(attribute)) is not None:
            return list(given) if isinstance(given, (list, tuple)) else [given]
        found = self.constant(index)
        return None if found is None else [int(each) for each in found.flatten()]


class Builder:
    """The fx graph while it grows."""

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.shared: dict[Any, tuple[str, nn.Module]] = {}
        self.single_only: str | None = None
        self.place = ''  # name of the ONNX node that is being built
        self._constants: dict[int, tuple[Tensor, fx.Node]] = {}

    def input(self, name: str, single: Tensor, double: Tensor) -> Value:
        """Return an input of the network."""
        return Value(node=self.graph.placeholder(identifier(name)), single=single, double=double)

    def call(self, function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Value:
        """Return what `function` makes of values, and of plain arguments."""
        given = [each for each in _leaves((args, kwargs)) if isinstance(each, Value)]
        single = self._run(function, args, kwargs, 'single')
        if all(each.constant is not None for each in given):
            return Value(constant=single)
        double = self._run_double(function, args, kwargs, given)
        node = self.graph.create_node(
            'call_function',
            function,
            _map(args, self.node),
            _map(kwargs, self.node),
            name=identifier(self.place),
        )
        return Value(node=node, single=single, double=double)

    def module(self, target: str, module: nn.Module, x: Value) -> Value:
        """Return what a module of the network makes of a value."""
        if x.constant is not None:
            return Value(constant=self._run(module, (x,), {}, 'single'))
        single = self._run(module, (x,), {}, 'single')
        double = self._run_double(module, (x,), {}, [x])
        node = self.graph.create_node('call_module', target, (self.node(x),))
        return Value(node=node, single=single, double=double, made_by=module)

    def add(self, name: str, module: nn.Module) -> str:
        """Put a module into the network; return the name that it gets."""
        target = self._free(name)
        path, _, own = target.rpartition('.')
        parent = self.root
        for part in path.split('.') if path else ():
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        parent.add_module(own, module.eval())
        return target

    def layer(self, key: Any, name: str, make: Callable[[], nn.Module], x: Value) -> Value:
        """Return what a layer makes of a value; nodes with the same `key` share the layer."""
        if key not in self.shared:
            module = make().eval()
            self.shared[key] = (self.add(name, module), module)
        return self.module(*self.shared[key], x)

    def move(self, function: Callable[..., Tensor], x: Value, *arguments: Any) -> Value:
        """Return what a function that only moves elements makes of a value: not yet a node."""
        if x.constant is not None:
            return self.call(function, x, *arguments)
        single = self._run(function, (x, *arguments), {}, 'single')
        double = self._run_double(function, (x, *arguments), {}, [x])
        base = x if x.move is None else x.move.base
        count = torch.Size(base.shape).numel()
        positions = torch.arange(count).reshape(base.shape) if x.move is None else x.move.positions
        moved = function(positions, *arguments)
        move = Move(base, x, moved, function, arguments, self.place)
        return Value(single=single, double=double, move=move)

    def only_reader(self, value: Value) -> bool:
        """Whether nobody but the node that is being built reads a value."""
        return value.readers == 1

    def node(self, value: Value) -> fx.Node:
        """Return the fx node of a value: from here on it is needed."""
        if value.node is None:
            value.node = self._moved(value) if value.constant is None else self._stored(value)
        return value.node

    def _moved(self, value: Value) -> fx.Node:
        move = value.move
        assert move is not None
        for start in (move.base, move.parent):
            parts = start.move.positions if start.move else None
            if (found := _picked(move.positions, start.shape, parts)) is None:
                continue
            axis, indices = found
            if indices == list(range(start.shape[axis])):
                return self.node(start)
            target = self.add(identifier(move.place), Take(axis, indices))
            return self.graph.create_node('call_module', target, (self.node(start),))
        return self.graph.create_node(
            'call_function',
            move.function,
            (self.node(move.parent), *move.arguments),
            name=identifier(move.place),
        )

    def _stored(self, value: Value) -> fx.Node:
        tensor = value.constant
        assert tensor is not None
        if id(tensor) not in self._constants:
            name = self._free(f'constant_{len(self._constants)}')
            self.root.register_buffer(name, tensor)
            self._constants[id(tensor)] = (tensor, self.graph.get_attr(name))
        return self._constants[id(tensor)][1]

    def _run(self, function: Any, args: Any, kwargs: Any, which: str) -> Tensor:
        def example(value: Value) -> Tensor:
            found = getattr(value, which)
            assert found is not None, 'used after its last use'
            return found

        with torch.no_grad():
            return function(*_map(args, example), **_map(kwargs, example))

    def _run_double(
        self, function: Any, args: Any, kwargs: Any, given: Sequence[Value]
    ) -> Tensor | None:
        if any(each.double is None for each in given):
            return None
        try:
            return self._run(function, args, kwargs, 'double')
        except (RuntimeError, IndexError, ValueError) as error:
            first = str(error).splitlines()[0]
            self.single_only = self.single_only or f'node {self.place!r}: {first}'
            return None

    def _free(self, name: str) -> str:
        """Return the name, or one like it that clashes with nothing."""
        taken = {each for each, _ in self.root.named_modules()} | set(self.root._buffers)
        leaves = {
            each for each, module in self.root.named_modules() if type(module) is not nn.Module
        }
        parents = [name[:at] for at, letter in enumerate(name) if letter == '.']
        if any(each in leaves for each in parents) or name in taken:
            name = name.replace('.', '_')
        free, number = name, 1
        while free in taken:
            free, number = f'{name}_{number}', number + 1
        return free


def _picked(
    positions: Tensor, shape: tuple[int, ...], start: Tensor | None
) -> tuple[int, list[int]] | None:
    """Return the axis along which, and the indices at which, entries of a tensor were picked.

    Args:
        positions: of the result's elements in some base.
        shape: of the tensor that they were perhaps picked from.
        start: the positions of that tensor's elements; None where it is the base.
    """
    if positions.ndim != len(shape) or not positions.numel():
        return None
    if start is None:
        start = torch.arange(torch.Size(shape).numel()).reshape(shape)
    differing = [axis for axis, size in enumerate(shape) if positions.shape[axis] != size]
    if len(differing) > 1:
        return None
    for axis in differing or sorted(range(len(shape)), key=lambda each: each != 1):
        others = [each for each in range(len(shape)) if each != axis]
        heads = start.permute(axis, *others).flatten(1)[:, 0] if others else start
        wanted = positions.permute(axis, *others).flatten(1)[:, 0] if others else positions
        order = heads.argsort()
        at = torch.searchsorted(heads[order], wanted.contiguous()).clamp(max=len(heads) - 1)
        indices = order[at]
        if torch.equal(start.index_select(axis, indices), positions):
            return axis, indices.tolist()
    return None


def identifier(name: str) -> str:
    """Return an ONNX name as a name of Python."""
    plain = re.sub(r'\W+', '_', name.strip('/')).strip('_') or 'node'
    return f'n{plain}' if plain[0].isdigit() else plain


def _map(tree: Any, function: Callable[[Value], Any]) -> Any:
    if isinstance(tree, Value):
        return function(tree)
    if isinstance(tree, tuple | list):
        return type(tree)(_map(each, function) for each in tree)
    if isinstance(tree, dict):
        return {key: _map(each, function) for key, each in tree.items()}
    return tree


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, tuple | list):
        return [leaf for each in tree for leaf in _leaves(each)]
    if isinstance(tree, dict):
        return [leaf for each in tree.values() for leaf in _leaves(each)]
    return [tree]
