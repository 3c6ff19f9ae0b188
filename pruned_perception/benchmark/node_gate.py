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

"""What `benchmark node` is compared with: limits, and a bundle with itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pruned_perception.benchmark.frame_source import rate_text
from pruned_perception.benchmark.node import Figures
from pruned_perception.errors import UserError


@dataclass(frozen=True)
class Limits:
    """What must hold of every model and rate; None: nothing."""

    max_p90_ms: float | None = None
    min_ap50: float | None = None
    max_miss_rate: float | None = None


def failures(figures: Sequence[Figures], limits: Limits) -> list[str]:
    """Return what does not keep the limits, in words; raises UserError where it is not known."""
    failed = []
    for each in figures:
        where = f'{each.model} at {rate_text(each.rate)}'
        if limits.max_p90_ms is not None and not each.e2e_receive.p90 <= limits.max_p90_ms:
            failed.append(
                f'{where}: p90 {each.e2e_receive.p90:.2f} ms is over {limits.max_p90_ms:g} ms'
            )
        if limits.min_ap50 is not None:
            if each.ap50 is None:
                raise UserError(
                    f'{where}: no ground truth, so AP50 cannot be measured: take the source sim, '
                    'or images:DIR of an annotated data set'
                )
            if not each.ap50 >= limits.min_ap50:
                failed.append(f'{where}: AP50 {each.ap50:.3f} is under {limits.min_ap50:g}')
        if limits.max_miss_rate is not None:
            if each.miss_rate is None:
                raise UserError('a limit of the miss rate needs a budget (--budget MS)')
            if not each.miss_rate <= limits.max_miss_rate:
                failed.append(
                    f'{where}: {100 * each.miss_rate:.1f} % of the frames received missed the '
                    f'budget, more than {100 * limits.max_miss_rate:g} %'
                )
    return failed


def same_twice(figures: Sequence[Figures]) -> list[str]:
    """Return, of models that were given twice, whether they differ by less than the interval.

    Where they do not, other work on the machine favoured one: no ratio of that session means much.
    """
    said = []
    for rate in dict.fromkeys(each.rate for each in figures):
        first, *others = [each for each in figures if each.rate == rate]
        for each in others:
            interval = each.p50_ratio.interval
            if each.sha256 != first.sha256 or interval is None:
                continue
            within = interval[0] <= 1 <= interval[1]
            said.append(
                f'{first.model} twice at {rate_text(rate)}: p50 differs by '
                f'{"less" if within else "MORE"} than the interval '
                f'({interval[0]:.2f} … {interval[1]:.2f} {"holds" if within else "does not hold"} '
                f'1){"" if within else ": the machine is too restless to compare models"}'
            )
    return said
