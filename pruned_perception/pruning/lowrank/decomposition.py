"""A decomposition: which layers become two, at which groups and rank. Nothing is replaced yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from pruned_perception.pruning.calibration import CalibrationRecord
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.structure import InputSpec


@dataclass(frozen=True)
class LayerPlan:
    """One layer's groups k and rank j, its size before and after, and the error of its weight.

    `error` is ‖W − Ŵ‖₂ / σ₁(W), computed directly. `bound` is √k · max_i σ_{i,j+1} / σ₁(W) for
    truncated slices, None for projections, which do not minimise the weight's error.
    """

    groups: int
    rank: int
    dense_parameters: int
    parameters: int
    dense_macs: int
    macs: int
    error: float
    bound: float | None


@dataclass(frozen=True, eq=False)
class Projection:
    """Orthonormal columns `basis` (f, j) that a layer's outputs are projected on.

    `shift` (f,) is added to the bias, so that the outputs' mean stays as it was.
    """

    basis: Tensor
    shift: Tensor

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Projection)
            and torch.equal(self.basis, other.basis)
            and torch.equal(self.shift, other.shift)
        )


@dataclass(frozen=True)
class Decomposition:
    """Groups and rank of each layer, the errors of the weights, and what the network will cost.

    Errors are relative to σ₁(W) ‖a‖ and not comparable with the ε of channel pruning, which is
    relative to the contributions to an output. Compare measured errors of the outputs instead.
    """

    method: str
    inputs: tuple[InputSpec, ...]
    dense_parameters: int
    parameters: int
    dense_macs: int
    macs: int
    layers: dict[str, LayerPlan]
    left_alone: dict[str, str]
    projections: dict[str, Projection] = field(default_factory=dict)
    calibration: CalibrationRecord | None = None

    @property
    def choice(self) -> dict[str, tuple[int, int]]:
        """Groups k and rank j of each layer that is decomposed."""
        return {name: (each.groups, each.rank) for name, each in self.layers.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for checkpoints and manifests."""
        projections = {
            name: {'basis': each.basis.tolist(), 'shift': each.shift.tolist()}
            for name, each in self.projections.items()
        }
        return {
            **{name: value for name, value in vars(self).items() if name != 'projections'},
            'inputs': [{'shape': list(each.shape), 'dtype': each.dtype} for each in self.inputs],
            'layers': {name: asdict(each) for name, each in self.layers.items()},
            'left_alone': dict(self.left_alone),
            'projections': projections,
            'calibration': self.calibration and self.calibration.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Decomposition:
        """Read what `to_dict` wrote."""
        try:
            layers = {name: LayerPlan(**each) for name, each in data['layers'].items()}
            projections = {
                name: Projection(
                    *(torch.tensor(each[part], dtype=torch.double) for part in ('basis', 'shift'))
                )
                for name, each in data['projections'].items()
            }
            record = data['calibration'] and CalibrationRecord.from_dict(data['calibration'])
            inputs = tuple(InputSpec(tuple(i['shape']), i['dtype']) for i in data['inputs'])
            parts = {
                'inputs': inputs,
                'layers': layers,
                'projections': projections,
                'calibration': record,
            }
            return cls(**{**data, **parts})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise PruningError(f'not a decomposition: {error}') from error

    def to_text(self) -> str:
        """Return a table: groups, rank, size and relative error of each layer."""
        width = max(map(len, self.layers), default=5)
        lines = [
            f'{self.method}: {self.parameters:,} of {self.dense_parameters:,} parameters '
            f'({self.parameters / self.dense_parameters:.1%}), {self.macs:,} of '
            f'{self.dense_macs:,} MACs ({self.macs / self.dense_macs:.1%})',
            f'{"layer":{width}}  groups  rank  parameters        MACs   error   bound',
        ]
        for name, each in self.layers.items():
            bound = '–' if each.bound is None else f'{each.bound:.4f}'
            lines.append(
                f'{name:{width}}  {each.groups:6d}  {each.rank:4d}  {each.parameters:10,d}  '
                f'{each.macs:10,d}  {each.error:.4f}  {bound:>6}'
            )
        lines += [f'{name:{width}}  left alone: {why}' for name, why in self.left_alone.items()]
        lines.append('errors are relative to σ₁(W)·‖a‖: not comparable with channel pruning’s ε')
        return '\n'.join(lines)
