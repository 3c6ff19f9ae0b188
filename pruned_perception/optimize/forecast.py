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

"""What is going to be done and what it will cost, said before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pruned_perception._tables import Table
from pruned_perception.optimize.job import Settings
from pruned_perception.optimize.probing import Probe
from pruned_perception.pruning.eprocess import rate_bound
from pruned_perception.pruning.errors import PruningError

WORK_RATES = {True: 100e9, False: 25e9}
"""Multiply–accumulates a second of a training on one core, in bfloat16 or not, by which minutes
become steps.

Fixed numbers, and not this machine's, so that the same command takes the same steps on every
processor of a kind and ends with the same weights. They are for dense layers: of a net of depthwise
ones, which waits for memory, a minute took three.
"""
STEP = 0.1
"""Seconds that a step of whole frames takes whatever the network: views, norms, comparisons."""


@dataclass(frozen=True)
class Forecast:
    """Of one member, before any training."""

    name: str
    asked: str
    probe: Probe

    @property
    def hopeless(self) -> bool:
        """Say whether the cut destroys more than minutes of teaching bring back."""
        return self.probe.pays is False

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {'name': self.name, 'asked': self.asked, 'probe': vars(self.probe)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Forecast:
        """Read what `to_dict` wrote."""
        return cls(data['name'], data['asked'], Probe(**data['probe']))


def steps_for(
    minutes: float,
    macs: int,
    parent_macs: int,
    batch: int,
    *,
    seen: float = 1.0,
    brain_floats: bool,
) -> int:
    """Return the steps of teaching that minutes of work are: three passes, and one of the parent.

    >>> steps_for(25, 519_000_000, 1_038_000_000, 8, brain_floats=True)
    4876

    Args:
        minutes: of one core.
        macs: of the network that is taught, for a whole frame.
        parent_macs: of its parent.
        batch: views a step.
        seen: share of a frame's pixels that a view has, on average.
        brain_floats: whether the processor multiplies in bfloat16.
    """
    work = batch * (3 * macs + parent_macs)
    return max(1, round(60 * minutes / (seen * (STEP + work / WORK_RATES[brain_floats]))))


def table(forecasts: Sequence[Forecast], dense: dict[str, Any]) -> str:
    """Return what is predicted of each member, as a table."""
    by_table = any(each.probe.predicted_ms is not None for each in forecasts)
    header = (
        'member | asked for | MMAC:.0f | ONNX, MiB:.2f | ms, one thread:.2f | × faster:.2f | '
        'agreement, untaught:.3f | AP50:.3f | error:.2f' + ' | ms, by the table:.2f' * by_table
    )
    rows: list[tuple[Any, ...]] = [
        (
            'dense',
            'the parent',
            dense['macs'] / 1e6,
            dense['bytes'] / 2**20,
            dense['ms'],
            1.0,
            1.0,
            1.0,
            0.0,
            *[None] * by_table,
        )
    ]
    for each in forecasts:
        probe = each.probe
        rows.append(
            (each.name, each.asked, probe.macs / 1e6, probe.bytes / 2**20, probe.ms, probe.speedup,
             probe.agreement, probe.ap50, probe.error, *[probe.predicted_ms] * by_table)
        )  # fmt: skip
    return Table.under(header, rows).to_text()


def best_bound(drives: int, confidence: float) -> float | None:
    """Return the lowest bound that so many drives can give: without a single event.

    >>> best_bound(1, 0.95) is None, round(best_bound(20, 0.95), 2)
    (True, 0.16)
    """
    if drives < 2:
        return None
    return float(rate_bound([0] * drives, [1] * drives, longest=1, confidence=confidence))


def drives_for(bound: float, confidence: float) -> int:
    """Return how many drives it takes, at least, to certify a bound.

    >>> drives_for(0.16, 0.95)
    20
    """
    if not 0 < bound < 1:
        raise PruningError(f'--at-most {bound:g}: must be a share in (0, 1), for example 0.05')
    count = 2
    while (found := best_bound(count, confidence)) is not None and found > bound:
        count += max(1, count // 20)
    return count


def check_certifiable(settings: Settings, drives: int, parts: float) -> None:
    """Raise PruningError where the drives to certify on cannot give the bound that is asked for.

    Args:
        settings: with `at_most` and `confidence`.
        drives: that are set aside for the certificate; below two where drives are too few.
        parts: share of all drives that is set aside.
    """
    if settings.at_most is None or 'certificate' in settings.skip:
        return
    needed = drives_for(settings.at_most, settings.confidence)
    if drives >= needed:
        return
    best = best_bound(drives, settings.confidence)
    have = 'nothing can be proven' if best is None else f'at best {best:.1%} can be'
    raise PruningError(
        f'--at-most {settings.at_most:g} at {settings.confidence:g} confidence: takes {needed} '
        f'drives that nothing was chosen on, even where not one detection is lost; {drives} are '
        f'set aside of these images, by which {have}. Give {int(np.ceil(needed / parts))} drives '
        'in all (a folder, video or bag each), or a larger bound'
    )
