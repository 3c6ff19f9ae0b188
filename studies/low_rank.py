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

"""Channels alone against channels and low rank under one budget, by a latency table.

    pruned-perception profile models/warehouse/dense --out table.json
    python -m studies.low_rank DATA --table table.json --work WORK

DATA holds `drive` and `test` of `label_free.py`; no label of `drive` is read. For each seed, which
draws the frames that are scored on and fitted to, and each speed by the table the dense detector is
cut both ways (`allocate(…, ranks=False)` and `ranks=True`), refitted, measured by turns with the
dense one in CPU time, and judged on `test`, paired. Nothing is taught.

WORK keeps what is done: the same command goes on there, and prints what there is in the end.
`--plans` cuts nothing and needs no WORK: it prints what both are predicted to lose.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from pruned_perception._tables import Table
from pruned_perception.benchmark.engine import compare, measure, of_bundle
from pruned_perception.inference.accuracy import evaluate
from pruned_perception.inference.latency_table import LatencyTable, read_table
from pruned_perception.pruning import Latency, Plan, allocate
from pruned_perception.training.compute import use_one_thread
from studies.milliseconds import (
    RECIPE,
    ROUNDS,
    RUNS,
    Seed,
    arguments,
    bundle_of,
    every_cell,
    pooled,
    prepared,
    refitted,
)

WAYS = ('channels', 'both')


def planned(seed: Seed, ms: float, table: LatencyTable) -> dict[str, Plan]:
    """Divide the milliseconds among channels alone, and among channels and ranks."""
    return {
        way: allocate(
            seed.evidence,
            Latency(ms, table),
            rule=RECIPE.allocation,
            ranks=way == 'both',
            seed=seed.number,
        )
        for way in WAYS
    }


def cell(seed: Seed, speed: float, table: LatencyTable, data: Path, folder: Path) -> dict[str, Any]:
    """Cut both ways, refit, measure, judge; return the figures, and the draws of the bootstrap."""
    plans = planned(seed, table.whole.ms / speed, table)
    bundles = {
        way: bundle_of(seed, refitted(seed, plan), plan, folder / way)
        for way, plan in plans.items()
    }
    networks = [of_bundle(each) for each in (seed.bundle, *bundles.values())]
    times = measure(networks, rounds=ROUNDS, runs=RUNS, clock=time.process_time_ns)
    beside_dense = compare(networks, times)[1:]
    beside_channels = compare(networks[1:], times[1:])[1]
    found: dict[str, Any] = {
        'seed': seed.number,
        'speed': speed,
        'faster': [beside_channels.speedup, beside_channels.speedup_interval],
        'ranks': plans['both'].ranks,
    }
    for (way, plan), measured in zip(plans.items(), beside_dense, strict=True):
        metrics = evaluate(bundles[way], data / 'test')[0]
        assert metrics.draws is not None
        assert plan.predicted_ms is not None
        found[way] = {
            'share': plan.macs / plan.dense_macs,
            'predicted': table.whole.ms / plan.predicted_ms,
            'measured': measured.speedup,
            'ap50': metrics.ap50,
            'draws': np.round(metrics.draws[:, 0], 6).tolist(),
        }
        print(f'  {way}: AP50 {metrics.ap50:.4f}, {measured.speedup:.2f} times as fast', flush=True)
    return found


def loss(seed: Seed, plan: Plan) -> float:
    """Return what a plan is predicted to lose."""
    errors = seed.evidence.errors
    assert errors is not None
    if plan.loss is not None:
        return plan.loss
    return sum(float(errors[name][width]) for name, width in plan.widths.items())


def losses(seed: Seed, speed: float, table: LatencyTable) -> tuple[object, ...]:
    """Return a row: what both ways are predicted to lose, and how many layers become two."""
    plans = planned(seed, table.whole.ms / speed, table)
    alone, both = (loss(seed, plans[way]) for way in WAYS)
    return speed, seed.number, alone, both, both / alone, len(plans['both'].ranks)


def as_text(cells: list[dict[str, Any]]) -> str:
    """Return a line for each cell, and for each speed all seeds together."""

    def draws(each: dict[str, Any]) -> np.ndarray:
        return np.array(each['both']['draws']) - np.array(each['channels']['draws'])

    header = (
        'faster, by the table:g | seed | measured, channels:.2f | measured, both:.2f | '
        'time, channels ÷ both | layers of low rank | AP50, channels:.3f | AP50, both:.3f | '
        'difference, 95 % by layouts'
    )
    rows: list[tuple[object, ...]] = []
    lines = []
    for speed in sorted({each['speed'] for each in cells}):
        mine = [each for each in cells if each['speed'] == speed]
        gains = [each['both']['ap50'] - each['channels']['ap50'] for each in mine]
        for each, gain in zip(mine, gains, strict=True):
            low, high = np.percentile(draws(each), [2.5, 97.5])
            ratio, interval = each['faster']
            rows.append(
                (speed, each['seed'], each['channels']['measured'], each['both']['measured'],
                 '{:.3f} [{:.3f}, {:.3f}]'.format(ratio, *interval), len(each['ranks']),
                 each['channels']['ap50'], each['both']['ap50'],
                 f'{gain:+.4f} [{low:+.4f}, {high:+.4f}]')
            )  # fmt: skip
        lines.append(pooled(speed, gains, [draws(each) for each in mine]))
    return Table.under(header, rows).to_markdown() + '\n\n' + '\n'.join(lines)


def main() -> None:
    """Do what is missing, and print."""
    args = arguments(__doc__, [2.0, 4.0, 8.0])
    use_one_thread()
    table = read_table(args.table)
    if args.plans:
        header = (
            'faster, by the table:g | seed | loss, channels:.4g | loss, both:.4g | ratio:.2f | '
            'layers of low rank'
        )
        every = [prepared(args.data, number, args.images) for number in range(args.seeds)]
        rows = [losses(seed, speed, table) for speed in args.speeds for seed in every]
        print(Table.under(header, rows).to_markdown())
        return
    print(as_text(every_cell(args, table, cell)))


if __name__ == '__main__':
    main()
