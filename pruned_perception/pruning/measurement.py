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

"""The second of three errors: what a plan loses on the calibration set, consumer by consumer.

The first, the a-priori bound, is in the plan; the third, decisions on a hold-out, in the
certificate. Recalibration, fine-tuning, quantisation and the pruning of earlier layers void the
first two, since here every layer is fed the parent's own activations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruned_perception._tables import Table
from pruned_perception.pruning.calibration import Batch, CheckedBatches
from pruned_perception.pruning.contributions import contributions, fields, sampled, whole_kernel
from pruned_perception.pruning.estimation import mixing_outputs
from pruned_perception.pruning.graph.observation import observed, run
from pruned_perception.pruning.graph.plain import plain
from pruned_perception.pruning.plan import Plan
from pruned_perception.pruning.records import CalibrationRecord, Record
from pruned_perception.pruning.structure import Structure
from pruned_perception.pruning.tracing import trace

POSITIONS = 8
_OTHERS = 1 << 40


@dataclass(frozen=True)
class ConsumerError:
    """Share Σ_pruned v / V of a consumer's absolute contributions that a plan takes away."""

    layer: str
    mean: float
    largest: float


@dataclass(frozen=True)
class MeasuredErrors(Record):
    """Errors of all consumers; `positions` per image were sampled (None: all)."""

    consumers: tuple[ConsumerError, ...]
    calibration: CalibrationRecord
    positions: int | None

    def to_text(self) -> str:
        """Return a table."""
        rows = [(each.layer, each.mean, each.largest) for each in self.consumers]
        return (
            'share of absolute contributions lost on the calibration set, before recalibration\n'
            + Table.under('consumer | mean:5.1% | largest:7.1%', rows).to_text()
        )


def measure_errors(
    model: nn.Module,
    plan: Plan,
    calibration: Iterable[Batch],
    *,
    positions: int | None = POSITIONS,
    seed: int = 0,
    structure: Structure | None = None,
) -> MeasuredErrors:
    """Measure what each consumer loses under `plan`, fed the parent's activations, in one pass.

    Args:
        model: the dense network, which runs where it is.
        plan: what would be cut of it.
        calibration: batches of inputs.
        positions: sampled per image, or None for all.
        seed: of the positions, which are others than those that sensitivities of the same seed
            were measured at: these know their own best.
        structure: of the network, if it has been traced already.
    """
    example = [each.example() for each in plan.inputs]
    model = plain(model)
    structure = structure or trace(model, example)
    modules = dict(model.named_modules())
    kernels = {
        name: mixing_outputs(whole_kernel(modules[name])).abs() for name in structure.readers()
    }
    lost: dict[str, Tensor] = {}
    for layer, who in structure.readers().items():
        if not kernels[layer].shape[1]:  # it passes channels on, see `sensitivity`
            continue
        indices: list[int] = []
        for group, part in who:
            gone = set(range(group.channels)) - set(
                plan.kept.get(group.name, range(group.channels))
            )
            indices += part.of(gone)
        lost[layer] = torch.tensor(sorted(indices), dtype=torch.long)
    generator = torch.Generator().manual_seed(seed + _OTHERS)
    sums = {name: [0.0, 0, 0.0] for name in lost}

    def observe(name: str, x: Tensor, output: Tensor) -> None:
        weight, found = kernels[name], fields(modules[name], x.detach())
        for field in sampled(found, weight, positions, generator):
            for values in contributions(field.abs(), weight):  # (c, n, f)
                whole = values.sum(0)
                share = values[lost[name]].sum(0)[whole > 0] / whole[whole > 0]
                entry = sums[name]
                entry[0] += float(share.double().sum())
                entry[1] += share.numel()
                entry[2] = max(entry[2], float(share.max()) if share.numel() else 0.0)

    batches = CheckedBatches(calibration, example)
    with observed(model, lost, observe):
        run(model, batches)
    consumers = tuple(
        ConsumerError(name, total / max(count, 1), largest)
        for name, (total, count, largest) in sums.items()
    )
    return MeasuredErrors(consumers, batches.record, positions)
