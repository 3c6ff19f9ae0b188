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

"""What a member will cost, before anything is trained: cut, fitted, timed, compared.

A probe is one cut of the parent, exported and timed beside it in ONNX Runtime. MACs are not
milliseconds, so a budget in time is searched for by probes that cut by sensitivities, which cost
nothing more. The candidate that comes of it is cut as the recipe says, fitted to the parent by
least squares and compared with it: what teaching begins with.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from pruned_perception.benchmark.engine import Network, measure
from pruned_perception.bundle import Bundle
from pruned_perception.errors import UserError
from pruned_perception.pruning import Macs, Plan, Sensitivity, allocate, estimate_sensitivity
from pruned_perception.pruning.allocation import floor_widths
from pruned_perception.pruning.budget import BudgetError
from pruned_perception.pruning.tracing import trace
from pruned_perception.training.onnx_import import OnnxNetwork, export_onnx

IMAGES = 48
"""Frames that sensitivities are measured on."""
JUDGED = 48
"""Held-out frames that probes are compared on."""
ROUNDS, RUNS = 9, 5
"""Of timing a probe beside its parent."""
PROBES = 6
"""At most, in a search."""
SLACK = 0.02
"""A search ends where the time is met, and no more than this share below it."""


@dataclass(frozen=True)
class Target:
    """One member that is asked for: a share of the MACs, so many times faster, or milliseconds."""

    unit: str
    """'macs', 'speedup' or 'ms'."""
    value: float

    def __post_init__(self) -> None:
        good = {'macs': 0 < self.value <= 1, 'speedup': self.value >= 1, 'ms': self.value > 0}
        if not (math.isfinite(self.value) and good[self.unit]):
            wanted = {'macs': 'in (0, 1]', 'speedup': '≥ 1', 'ms': '> 0'}[self.unit]
            raise UserError(f'--{self.option} {self.value:g}: must be {wanted}')

    @property
    def option(self) -> str:
        """What the command line calls the unit."""
        return {'macs': 'macs', 'speedup': 'speedup', 'ms': 'budget-ms'}[self.unit]

    @property
    def name(self) -> str:
        """Of the member."""
        if self.unit == 'macs':
            return f'macs{100 * self.value:g}'.replace('.', '_')
        return f'x{self.value:g}' if self.unit == 'speedup' else f'{self.value:g}ms'

    def __str__(self) -> str:
        if self.unit == 'macs':
            return f'{self.value:.0%} of the MACs'
        return f'{self.value:g}× faster' if self.unit == 'speedup' else f'{self.value:g} ms'


@dataclass(frozen=True)
class Probe:
    """What one cut gave, untrained."""

    share: float
    """Of the parent's MACs, as asked for."""
    macs: int
    parameters: int
    bytes: int
    """Of the ONNX file."""
    ms: float
    """Median of a run, one thread."""
    speedup: float
    """Of the same rounds, against the parent."""
    agreement: float | None = None
    """With the parent on held-out frames, see `Likeness`; None where it was not looked at."""
    ap50: float | None = None
    error: float | None = None
    pays: bool | None = None
    """Whether teaching is likely to bring it back, see `label_free.Prediction`."""
    predicted_ms: float | None = None
    """By the latency table of the machine that it is for, where there is one."""

    def meets(self, target: Target) -> bool:
        """Say whether it is as small, or as fast, as is asked for."""
        if target.unit == 'ms':
            return self.ms <= target.value
        return self.speedup >= target.value if target.unit == 'speedup' else True


class Prober:
    """Cuts of one parent; the sensitivities are measured once."""

    def __init__(
        self,
        bundle: Bundle,
        network: OnnxNetwork,
        sensitivity: Sensitivity,
        *,
        round_to: int,
    ) -> None:
        """Take the parent, its network, its sensitivities, and the block of channels."""
        self.bundle, self.network = bundle, network
        self.sensitivity, self.round_to = sensitivity, round_to

    def plan(self, share: float) -> Plan:
        """Return the plan of a share; raise BudgetError where blocks do not allow it."""
        return allocate(self.sensitivity, Macs(share), round_to=self.round_to, rule='proportional')

    def smallest(self) -> Plan:
        """Return the plan that keeps one block of every group."""
        structure = self.sensitivity.structure
        blocks = {each.name: math.lcm(self.round_to, each.unit) for each in
                  structure.groups.prunable}  # fmt: skip
        widths = floor_widths(structure.channels, blocks)
        return allocate(self.sensitivity, widths=widths, round_to=self.round_to)

    def probe(self, plan: Plan) -> Probe:
        """Cut, export and time."""
        share = plan.macs / plan.dense_macs
        return self.timed(plan.apply(self.network.module), share, plan.macs, plan.parameters)

    def timed(self, module: nn.Module, share: float, macs: int, parameters: int) -> Probe:
        """Export a network made of the parent's, and time it by turns with that."""
        assert isinstance(module, fx.GraphModule)
        model = export_onnx(self.network, module)
        parent, child = timed([self.bundle.onnx_bytes, model], rounds=ROUNDS, runs=RUNS)
        return Probe(
            share=share,
            macs=macs,
            parameters=parameters,
            bytes=len(model),
            ms=float(np.median(child)),
            speedup=speedup(parent, child),
        )

    def find(
        self, target: Target, report: Callable[[str, float, str], None] = lambda *_: None
    ) -> Probe:
        """Return the largest cut that meets a target, by probes that are timed only.

        Raises:
            UserError: not even the smallest network meets it; says what is reachable.
        """
        if target.unit == 'macs':
            return self.probe(self.plan(target.value))
        report(f'looking for {target}', 0.0, 'the smallest network')
        least = self.probe(self.smallest())
        if not least.meets(target):
            raise UserError(
                f'--{target.option} {target.value:g}: not reachable on this machine by cutting '
                f'channels: the smallest network of this kind takes {least.ms:.2f} ms, '
                f'{least.speedup:.2f}× as fast as the parent, with {least.share:.1%} of its MACs'
            )
        low, best = least.share, least
        high = 1.0
        guess = self._first_guess(target, least)
        for number in range(PROBES):
            report(f'looking for {target}', number / PROBES, f'{guess:.0%} of the MACs')
            try:
                found = self.probe(self.plan(guess))
            except BudgetError:
                break
            if found.meets(target):
                low, best = guess, found if found.share >= best.share else best
            else:
                high = guess
            if high - low < SLACK * high:
                break
            guess = math.sqrt(low * high)
        return best

    def _first_guess(self, target: Target, least: Probe) -> float:
        """Return the share by interpolation of times between parent and smallest network."""
        dense = least.ms * least.speedup
        wanted = target.value if target.unit == 'ms' else dense / target.value
        if wanted >= dense:
            return 1.0
        along = (wanted - least.ms) / max(dense - least.ms, 1e-9)
        return min(1.0, max(1.05 * least.share, least.share + along * (1 - least.share)))


def measure_sensitivity(network: OnnxNetwork, batches: Sequence[Tensor], seed: int) -> Sensitivity:
    """Return how sensitive every layer is to each of its inputs, on batches of inputs."""
    structure = trace(network.module, network.example_inputs)
    return estimate_sensitivity(
        network.module,
        batches,
        example_inputs=network.example_inputs,
        definition='quadrants',
        seed=seed,
        structure=structure,
    )


def timed(models: Sequence[bytes], *, rounds: int, runs: int) -> NDArray[np.float64]:
    """Return the durations of ONNX models by turns, ms (models, rounds, runs), one thread."""
    networks = [Network(str(index), '', None, model) for index, model in enumerate(models)]
    return measure(networks, rounds=rounds, runs=runs)


def speedup(parent: NDArray[np.float64], child: NDArray[np.float64]) -> float:
    """Return how many times faster the child is: the median over rounds of ratios of medians."""
    return float(np.median(np.median(parent, -1) / np.median(child, -1)))


def block_of_machine(flags: str | None = None, machine: str | None = None) -> int:
    """Return how many channels an engine computes at once here: multiples of it are fast.

    >>> block_of_machine('fpu avx2 avx512f', 'x86_64'), block_of_machine('fpu avx2', 'x86_64')
    (16, 8)
    """
    if flags is None:
        try:
            flags = Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace')
        except OSError:
            flags = ''
    machine = platform.machine() if machine is None else machine
    if machine in ('x86_64', 'AMD64'):
        return 16 if 'avx512f' in flags.split() else 8
    return 8
