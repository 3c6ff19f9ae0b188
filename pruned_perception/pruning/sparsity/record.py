"""What a plan of weight sparsity holds: which weights of which layer stay, and their factors.

Unstructured sparsity does not speed up dense kernels, which multiply zeros as fast as anything
else: a sparse network costs the same multiply-accumulates and the same time. What shrinks is its
size, once the zeros are left out of the file, see `size`.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruned_perception.pruning.calibration import CalibrationRecord
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.plan import bound_text
from pruned_perception.pruning.sparsity.size import bitmask_bytes, csr_bytes


@dataclass(frozen=True)
class LayerSparsity:
    """Which weights of one layer stay.

    Attributes:
        name: of the layer.
        shape: of its weight.
        kept: how many weights stay.
        value_bytes: size of one weight.
        bits: the mask, row-major, eight weights a byte, the first in the highest bit.
        values: factors of the kept weights, row-major 32-bit little-endian floats; empty where
            all are 1.
        bound: ε of |ẑ − z| ≤ ε V for each of its outputs, where the method has a guarantee.
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    value_bytes: int
    bits: bytes
    values: bytes
    bound: float | None

    @property
    def weights(self) -> int:
        """How many weights the layer has."""
        return math.prod(self.shape)

    @property
    def mask(self) -> Tensor:
        """Which weights stay: bool, of the weight's shape."""
        packed = np.frombuffer(self.bits, np.uint8)
        flat = np.unpackbits(packed, count=self.weights).astype(bool)
        return torch.from_numpy(flat).view(self.shape)

    @property
    def factors(self) -> Tensor:
        """What each weight is multiplied with, of the weight's shape; 0 where it is pruned."""
        factors, mask = torch.zeros(self.shape), self.mask
        kept = torch.from_numpy(np.frombuffer(self.values, '<f4').astype(np.float32))
        factors[mask] = kept if self.values else 1.0
        return factors

    @property
    def mask_sha256(self) -> str:
        """SHA-256 of the mask."""
        return hashlib.sha256(self.bits).hexdigest()

    @property
    def compressed_bytes(self) -> int:
        """Size of the weight in the smallest of its forms: dense, bitmask or CSR."""
        rows, *columns = self.shape
        return min(
            self.weights * self.value_bytes,
            bitmask_bytes(self.weights, self.kept, self.value_bytes),
            csr_bytes(rows, math.prod(columns), self.kept, self.value_bytes),
        )


@dataclass(frozen=True)
class SparsityPlan:
    """Kept weights of each layer, how they were chosen, and what the network's size will be.

    `parameters` counts all of the network's, `dense_bytes` their size. δ, K and `positions` belong
    to the bounds, which were measured on `calibration`.
    """

    method: str
    scope: str
    seed: int
    delta: float
    K: float
    positions: int | None
    calibration: CalibrationRecord | None
    parameters: int
    dense_bytes: int
    layers: tuple[LayerSparsity, ...]
    not_pruned: dict[str, str]

    @property
    def pruned(self) -> int:
        """How many weights become zero."""
        return sum(layer.weights - layer.kept for layer in self.layers)

    @property
    def share(self) -> float:
        """Share of the network's parameters that remain."""
        return 1 - self.pruned / self.parameters

    @property
    def kept(self) -> dict[str, int]:
        """How many weights each layer keeps."""
        return {layer.name: layer.kept for layer in self.layers}

    @property
    def compressed_bytes(self) -> int:
        """Size of all parameters, each pruned layer in its smallest form, the others dense."""
        saved = (each.weights * each.value_bytes - each.compressed_bytes for each in self.layers)
        return self.dense_bytes - sum(saved)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; masks and factors as base64."""
        data = asdict(self)
        for own, layer in zip(data['layers'], self.layers, strict=True):
            own['bits'] = base64.b64encode(layer.bits).decode()
            own['values'] = base64.b64encode(layer.values).decode()
            own['shape'] = list(layer.shape)
            own['mask_sha256'] = layer.mask_sha256
        data['layers'] = list(data['layers'])
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SparsityPlan:
        """Read what `to_dict` wrote; raise PruningError where it is something else."""
        try:
            record = data['calibration']
            return cls(
                **{
                    **data,
                    'calibration': record and CalibrationRecord.from_dict(record),
                    'layers': tuple(_read_layer(each) for each in data['layers']),
                }
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise PruningError(f'not a plan of sparsity: {error}') from error

    def to_text(self) -> str:
        """Return a table: kept weights and bound of each layer, and the size."""
        width = max((len(layer.name) for layer in self.layers), default=5)
        left = self.parameters - self.pruned
        lines = [
            f'{self.method}, one budget per {self.scope}: {left:,} of {self.parameters:,} '
            f'parameters remain ({self.share:.1%})',
            f'size {self.compressed_bytes:,} of {self.dense_bytes:,} bytes '
            f'({self.compressed_bytes / self.dense_bytes:.1%}) with the zeros left out; '
            'dense kernels run no faster',
            f'{"layer":{width}}  {"weights":>9}  {"kept":>9}  share  bound',
        ]
        lines += [
            f'{each.name:{width}}  {each.weights:9d}  {each.kept:9d}  '
            f'{each.kept / each.weights:5.0%}  {bound_text(each.bound)}'
            for each in self.layers
        ]
        lines += [f'{name:{width}}  kept whole: {why}' for name, why in self.not_pruned.items()]
        return '\n'.join(lines)


def _read_layer(data: Mapping[str, Any]) -> LayerSparsity:
    fields = {name: value for name, value in data.items() if name != 'mask_sha256'}
    layer = LayerSparsity(
        **{
            **fields,
            'shape': tuple(data['shape']),
            'bits': base64.b64decode(data['bits']),
            'values': base64.b64decode(data['values']),
        }
    )
    if layer.mask_sha256 != data['mask_sha256']:
        raise ValueError(f'the mask of {layer.name!r} is not the one that was planned')
    return layer
