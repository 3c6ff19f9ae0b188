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

"""All that is known of one pruned network, as plain data: what a report shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pruned_perception.bundle import Bundle
from pruned_perception.inference.accuracy import MEMBER
from pruned_perception.pruning.certificate import (
    Certificate,
    FormerCertificate,
    read_certificate,
)
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.measurement import MeasuredErrors
from pruned_perception.pruning.outcome import Outcome
from pruned_perception.pruning.plan import Plan
from pruned_perception.pruning.prediction import Curve
from pruned_perception.pruning.records import Record
from pruned_perception.pruning.sensitivity import ConsumerSensitivity, Sensitivity


@dataclass(frozen=True)
class Accuracy:
    """AP50 of a network and of the dense one, on the same frames; intervals of 95 %."""

    data: str
    images: int
    ap50: float
    interval: tuple[float, float] | None
    dense_ap50: float
    dense_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Against:
    """What bundles record of a pruned network beside the dense one: what users judge by."""

    dense: str
    macs: int
    dense_macs: int
    parameters: int
    dense_parameters: int
    size: int
    """Bytes of the ONNX file."""
    dense_size: int
    ms: float | None = None
    """Median of a run, on `machine`."""
    speedup: float | None = None
    speedup_interval: tuple[float, float] | None = None
    machine: str = ''
    accuracy: Accuracy | None = None


def against(bundle: Bundle, dense: Bundle) -> Against:
    """Return what the manifests of both record."""
    latency: Mapping[str, Any] = next(
        (each for each in bundle.manifest['latency'] if each.get('compared_with') == dense.name), {}
    )
    interval = latency.get('speedup_interval')
    return Against(
        dense.name,
        bundle.cost.macs,
        dense.cost.macs,
        bundle.cost.parameters,
        dense.cost.parameters,
        len(bundle.onnx_bytes),
        len(dense.onnx_bytes),
        latency.get('latency_ms', {}).get('p50'),
        latency.get('speedup'),
        None if interval is None else (interval[0], interval[1]),
        latency.get('environment', {}).get('cpu', ''),
        _accuracy(bundle, dense),
    )


def _accuracy(bundle: Bundle, dense: Bundle) -> Accuracy | None:
    """Return the first evaluation that both have of the same annotations."""
    own, others = (
        {
            each['annotations_sha256']: each
            for each in reversed(one.manifest['evaluation'])
            if each.get('net', MEMBER) == MEMBER and 'ap50' in each
        }
        for one in (bundle, dense)
    )
    for digest, each in own.items():
        if (other := others.get(digest)) is not None:
            return Accuracy(
                each['data'], each['images'],
                each['ap50'], _pair(each.get('ap50_interval')),
                other['ap50'], _pair(other.get('ap50_interval')),
            )  # fmt: skip
    return None


def _pair(interval: Any) -> tuple[float, float] | None:
    return None if not interval else (interval[0], interval[1])


NAMES = {'measured': 'measured_errors', 'earlier': 'earlier_plans'}
"""What files call fields otherwise."""


@dataclass(frozen=True)
class Findings(Record):
    """A plan, and what was measured beside it; what was not is None or empty.

    `earlier` are the plans of the cuts before this one, the first one first; `comparison` is what
    a comparison's table writes with `to_dict`; `outcome`, what the cut did to the outputs;
    `against`, what is recorded beside the dense network.
    """

    name: str
    plan: Plan
    measured: MeasuredErrors | None = None
    sensitivity: Sensitivity | None = None
    curves: tuple[Curve, ...] = ()
    certificate: Certificate | FormerCertificate | None = None
    comparison: Mapping[str, Any] | None = None
    earlier: tuple[Plan, ...] = ()
    outcome: Outcome | None = None
    against: Against | None = None

    def __post_init__(self) -> None:
        if self.sensitivity is None:
            return
        for name, channels in self.plan.channels.items():
            if self.sensitivity.structure.channels.get(name) != channels:
                raise PruningError(
                    f'{self.name}: the sensitivities are of another network than the plan, whose '
                    f'group {name!r} has {channels} channels'
                )

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        data['certificate'] = self.certificate and self.certificate.to_dict()
        return {NAMES.get(name, name): value for name, value in data.items()}

    @classmethod
    def _given(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        names = {name: own for own, name in NAMES.items()}
        own = {names.get(name, name): value for name, value in data.items()}
        own.pop('out', None)  # what `prune --json` prints beside them
        certificate = own.get('certificate')
        return {**own, 'certificate': certificate and read_certificate(certificate)}

    def to_text(self) -> str:
        """Return the plan's table, then the measured errors and the certificate."""
        parts = [self.plan, self.measured, self.outcome, self.certificate]
        return '\n\n'.join(each.to_text() for each in parts if each is not None)

    def layers(self) -> tuple[LayerFinding, ...]:
        """Return what is known layer by layer: consumers, or groups without sensitivities."""
        if self.sensitivity is None:
            return tuple(self._of_group(name) for name in self.plan.kept)
        found: dict[str, list[ConsumerSensitivity]] = {}
        for each in self.sensitivity.consumers:
            found.setdefault(each.layer, []).append(each)
        order = [term.layer for term in self.sensitivity.structure.terms if term.layer in found]
        return tuple(self._of_consumer(layer, found[layer]) for layer in order)

    def _of_group(self, name: str) -> LayerFinding:
        plan = self.plan
        return LayerFinding(
            layer=name,
            reads=(),
            channels=plan.channels[name],
            kept=len(plan.kept[name]),
            total=plan.sums.get(name),
            bound=plan.errors.get(name),
            mean=None,
            largest=None,
            cells=(),
        )

    def _of_consumer(self, layer: str, parts: list[ConsumerSensitivity]) -> LayerFinding:
        cells = []
        for part in parts:
            kept = set(self.plan.kept.get(part.group, range(len(part.values))))
            cells += [(value, index in kept) for index, value in enumerate(part.values)]
        measured = () if self.measured is None else self.measured.consumers
        error = next((each for each in measured if each.layer == layer), None)
        return LayerFinding(
            layer=layer,
            reads=tuple(part.group for part in parts),
            channels=len(cells),
            kept=sum(kept for _, kept in cells),
            total=sum(part.total for part in parts),
            bound=self._bound(parts, sum(value for value, kept in cells if not kept)),
            mean=None if error is None else error.mean,
            largest=None if error is None else error.largest,
            cells=tuple(cells),
        )

    def _bound(self, parts: list[ConsumerSensitivity], pruned: float) -> float | None:
        """Return the a-priori error: errors of groups that are read side by side add up.

        The sum of what is pruned bounds the error of any choice whose kept channels are left as
        they are, whatever it was made by.
        """
        if not self.plan.factors:
            return pruned
        errors = [self.plan.errors.get(part.group, 0.0) for part in parts]
        return sum(errors) if self.plan.errors else None


@dataclass(frozen=True)
class LayerFinding:
    """One layer: how compressible it is, what is kept of what it reads, and its errors.

    `cells`: for each channel its sensitivity, and whether it is kept.
    """

    layer: str
    reads: tuple[str, ...]
    channels: int
    kept: int
    total: float | None
    bound: float | None
    mean: float | None
    largest: float | None
    cells: tuple[tuple[float, bool], ...]

    @property
    def vacuous(self) -> bool:
        """Whether the a-priori bound says nothing."""
        return self.bound is not None and self.bound >= 1
