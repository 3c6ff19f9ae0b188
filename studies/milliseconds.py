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

"""Pruning to milliseconds against pruning to multiply–accumulates, at equal measured latency.

    pruned-perception profile models/warehouse/dense --out table.json
    python -m studies.milliseconds DATA --table table.json --work WORK

DATA holds `drive` and `test` of `label_free.py`. For each seed and each speed the dense detector is
cut twice, by the same scores: to the milliseconds that the table says, and to the share of the
multiply–accumulates at which the network measures as long (`MATCHED`; CPU time, by turns). Both
are refitted, and judged on `test`, paired. The seed draws the frames that are scored on and fitted
to; no label of `drive` is read, and nothing is taught.

WORK keeps what is done: the same command goes on there, and prints what there is in the end.
`--plans` cuts nothing and needs no WORK: it prints how far the two plans differ where the table
says that both take as long.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import fx

from pruned_perception._io import read_json, write_json
from pruned_perception._tables import Table
from pruned_perception.benchmark.engine import compare, measure, of_bundle
from pruned_perception.bundle import Bundle, load_bundle
from pruned_perception.datasets import read_dataset
from pruned_perception.inference.accuracy import evaluate
from pruned_perception.inference.intervals import mean_interval
from pruned_perception.inference.latency_table import LatencyTable, read_table
from pruned_perception.pruning import (
    Evidence,
    Latency,
    Macs,
    Plan,
    allocate,
    recalibrate,
    score,
)
from pruned_perception.pruning.budget import Budget
from pruned_perception.pruning.latency import latency_of
from pruned_perception.pruning.refit import refit
from pruned_perception.training.compute import use_one_thread
from pruned_perception.training.label_free import RECIPES
from pruned_perception.training.label_free.losses import projection
from pruned_perception.training.label_free.views import inputs_of
from pruned_perception.training.onnx_import import OnnxNetwork
from pruned_perception.training.onnx_import.task import export_bundle_network, import_bundle_network

PARENT = Path('models/warehouse/dense')
RECIPE = RECIPES['quick']
MATCHED = 0.02  # of the measured time
TRIES = 6
ROUNDS, RUNS = 12, 5


class Seed(NamedTuple):
    """The parent, the frames of a seed as inputs, and what they say of its channels."""

    bundle: Bundle
    network: OnnxNetwork
    calibration: list[Any]
    evidence: Evidence
    number: int


def prepared(data: Path, number: int, images: int) -> Seed:
    """Draw the frames of a seed and score the channels on them."""
    bundle = load_bundle(PARENT)
    network = import_bundle_network(bundle)
    frames = list(read_dataset(data / 'drive').images())
    drawn = np.random.default_rng(number).choice(len(frames), images, replace=False)
    chosen = [frames[k] for k in sorted(drawn.tolist())]
    calibration = inputs_of(bundle.input, chosen, images, RECIPE.batch)
    evidence = score(
        network.module,
        RECIPE.criterion,
        example_inputs=network.example_inputs,
        calibration=calibration,
        loss=projection(bundle),
        seed=number,
    )
    return Seed(bundle, network, calibration, evidence, number)


def planned(seed: Seed, budget: Budget) -> Plan:
    """Divide a budget as `prune_label_free` does."""
    return allocate(
        seed.evidence,
        budget,
        rule=RECIPE.allocation,
        round_to=RECIPE.round_to,
        seed=seed.number,
    )


def share_of(seed: Seed, ms: float, table: LatencyTable) -> float:
    """Return the share of the multiply–accumulates whose plan the table says takes so long."""
    latency = latency_of(seed.evidence.structure, table)
    low, high = 0.02, 1.0
    while high - low > 5e-4:
        middle = (low + high) / 2
        if latency(planned(seed, Macs(middle)).widths) > ms:
            high = middle
        else:
            low = middle
    return low


def bundle_of(seed: Seed, network: Any, plan: Plan, folder: Path) -> Bundle:
    """Write what was made of the parent."""
    return export_bundle_network(seed.bundle, network, [plan.to_dict()], folder, name=folder.name)


def ratio(one: Bundle, other: Bundle) -> tuple[float, tuple[float, float]]:
    """Return the measured time of the second relative to the first, by turns, in CPU time."""
    networks = [of_bundle(other), of_bundle(one)]
    times = measure(networks, rounds=ROUNDS, runs=RUNS, clock=time.process_time_ns)
    found = compare(networks, times)[1]
    return found.speedup, found.speedup_interval or (float('nan'),) * 2


def matched(
    seed: Seed, plan: Plan, table: LatencyTable, folder: Path
) -> tuple[Plan, dict[str, Any]]:
    """Return the plan by multiply–accumulates that measures as long as the plan by time."""
    by_time = bundle_of(seed, plan.apply(seed.network.module), plan, folder / 'cut-ms')
    assert plan.predicted_ms is not None
    aimed, tried = plan.predicted_ms, []
    for _ in range(TRIES):
        share = share_of(seed, aimed, table)
        other = planned(seed, Macs(share))
        cut = bundle_of(seed, other.apply(seed.network.module), other, folder / 'cut-macs')
        found, interval = ratio(by_time, cut)
        tried.append((abs(found - 1), other, {'ratio': found, 'interval': interval}))
        print(f'  MACs {share:.4f}: {found:.3f} of the time, {interval}', flush=True)
        if abs(found - 1) <= MATCHED:
            break
        aimed /= found
    _, other, how = min(tried, key=lambda each: each[0])
    return other, how


def refitted(seed: Seed, plan: Plan) -> fx.GraphModule:
    """Cut, and fit every layer to what it computed before."""
    dense = seed.network.module
    small = recalibrate(plan.apply(dense), seed.calibration)
    loss = projection(seed.bundle)
    fitted = refit(dense, small, plan, seed.calibration, seed=seed.number, loss=loss)
    return recalibrate(fitted, seed.calibration)  # type: ignore[return-value]


def cell(seed: Seed, speed: float, table: LatencyTable, data: Path, folder: Path) -> dict[str, Any]:
    """Cut both ways, refit, judge; return the figures, and the draws of the bootstrap."""
    by_time = planned(seed, Latency(table.whole.ms / speed, table))
    by_macs, how = matched(seed, by_time, table, folder)
    found: dict[str, Any] = {'seed': seed.number, 'speed': speed, **how}
    found['moved'] = moved(by_time, by_macs)
    for name, plan in (('ms', by_time), ('macs', by_macs)):
        if plan is by_macs and plan.kept == by_time.kept:
            found[name] = found['ms']
            continue
        bundle = bundle_of(seed, refitted(seed, plan), plan, folder / name)
        metrics = evaluate(bundle, data / 'test')[0]
        assert metrics.draws is not None
        found[name] = {
            'share': plan.macs / plan.dense_macs,
            'ap50': metrics.ap50,
            'draws': np.round(metrics.draws[:, 0], 6).tolist(),
        }
        print(f'  {name}: {found[name]["share"]:.3f} of the MACs, AP50 {metrics.ap50:.4f}')
    return found


def plans(seed: Seed, speeds: Sequence[float], table: LatencyTable) -> list[tuple[object, ...]]:
    """Return, for each speed, the shares that are kept, how far widths differ, and the losses."""
    rows: list[tuple[object, ...]] = []
    errors = seed.evidence.errors
    assert errors is not None
    for speed in speeds:
        by_time = planned(seed, Latency(table.whole.ms / speed, table))
        assert by_time.predicted_ms is not None
        by_macs = planned(seed, Macs(share_of(seed, by_time.predicted_ms, table)))
        both = by_time, by_macs
        losses = [sum(float(errors[k][n]) for k, n in each.widths.items()) for each in both]
        shares = [each.macs / each.dense_macs for each in both]
        rows.append((speed, seed.number, *shares, moved(by_time, by_macs), *losses))
    return rows


def rates(table: LatencyTable) -> str:
    """Say how evenly the network's layers use the processor, but for those of under 1 % of it."""
    found = []
    for layer in table.whole.layers:
        kernel = layer.geometry.kernel_height * layer.geometry.kernel_width
        inputs = 1 if layer.geometry.depthwise else layer.inputs
        ms = table.layer_ms(layer.geometry, layer.inputs, layer.outputs)
        found.append((ms, layer.elements * kernel * inputs / ms / 1e6))
    whole = sum(ms for ms, _ in found)
    large = [(ms, rate) for ms, rate in found if ms > 0.01 * whole]
    share = sum(ms for ms, _ in large) / whole
    low, high = (pick(rate for _, rate in large) for pick in (min, max))
    return (
        f'{len(large)} of {len(found)} convolutions take {share:.0%} of their time, at '
        f'{low:.1f} to {high:.1f} GMAC/s'
    )


def moved(one: Plan, other: Plan) -> float:
    """Return how many channels the widths of two plans differ by, relative to the first's."""
    gaps = (abs(width - other.widths[name]) for name, width in one.widths.items())
    return sum(gaps) / sum(one.widths.values())


def pooled(speed: float, gains: Sequence[float], draws: Sequence[np.ndarray]) -> str:
    """Return a line of all seeds of a speed, by their gains and the draws of these."""
    low, high = np.percentile(np.mean(draws, axis=0), [2.5, 97.5])
    text = f'{speed:g} × faster, {len(gains)} seeds: {np.mean(gains):+.4f}, 95 % by layouts '
    text += f'[{low:+.4f}, {high:+.4f}]'
    if len(gains) > 1:
        text += ', by seeds [{:+.4f}, {:+.4f}]'.format(*mean_interval(gains))
    return text


def as_text(cells: list[dict[str, Any]]) -> str:
    """Return a line for each cell, and for each speed all seeds together."""

    def difference(each: dict[str, Any]) -> float:
        return each['ms']['ap50'] - each['macs']['ap50']

    def draws(each: dict[str, Any]) -> np.ndarray:
        return np.array(each['ms']['draws']) - np.array(each['macs']['draws'])

    header = (
        'faster, by the table:g | seed | time, MACs ÷ ms | widths that differ:.1% | '
        'MACs kept, ms:.3f | MACs kept, MACs:.3f | AP50, ms:.3f | AP50, MACs:.3f | '
        'difference, 95 % by layouts'
    )
    rows: list[tuple[object, ...]] = []
    lines = []
    for speed in sorted({each['speed'] for each in cells}):
        mine = [each for each in cells if each['speed'] == speed]
        for each in mine:
            low, high = np.percentile(draws(each), [2.5, 97.5])
            measured = '{:.3f} [{:.3f}, {:.3f}]'.format(each['ratio'], *each['interval'])
            rows.append(
                (speed, each['seed'], measured, each['moved'], each['ms']['share'],
                 each['macs']['share'], each['ms']['ap50'], each['macs']['ap50'],
                 f'{difference(each):+.4f} [{low:+.4f}, {high:+.4f}]')
            )  # fmt: skip
        gains = [difference(each) for each in mine]
        lines.append(pooled(speed, gains, [draws(each) for each in mine]))
    return Table.under(header, rows).to_markdown() + '\n\n' + '\n'.join(lines)


def arguments(description: str | None, speeds: Sequence[float]) -> argparse.Namespace:
    """Return what is asked for on the command line."""
    parser = argparse.ArgumentParser(description=(description or '').splitlines()[0])
    parser.add_argument('data', type=Path)
    parser.add_argument('--table', type=Path, required=True, help='of `profile` of the parent')
    parser.add_argument('--work', type=Path)
    parser.add_argument('--plans', action='store_true', help='compare plans alone')
    parser.add_argument('--speeds', type=float, nargs='+', default=speeds, metavar='X')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--images', type=int, default=RECIPE.images, help='that a seed draws')
    args = parser.parse_args()
    if not args.plans and args.work is None:
        parser.error('--work is needed')
    return args


def every_cell(
    args: argparse.Namespace,
    table: LatencyTable,
    make: Callable[[Seed, float, LatencyTable, Path, Path], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return the cells of all seeds and speeds; those that the work has are not made again."""
    cells, seeds = [], dict[int, Seed]()
    for number, speed in itertools.product(range(args.seeds), args.speeds):
        folder = args.work / f'{number}-{speed:g}'
        file = folder / 'cell.json'
        if not file.is_file():
            print(f'seed {number}, {speed:g} times as fast', flush=True)
            folder.mkdir(parents=True, exist_ok=True)
            if number not in seeds:  # one at a time: each takes memory
                seeds = {number: prepared(args.data, number, args.images)}
            write_json(file, make(seeds[number], speed, table, args.data, folder))
        cells.append(read_json(file))
    return cells


def main() -> None:
    """Do what is missing, and print."""
    args = arguments(__doc__, [2.0, 4.0])
    use_one_thread()
    table = read_table(args.table)
    if args.plans:
        header = (
            'faster, by the table:g | seed | MACs kept, ms:.3f | MACs kept, MACs:.3f | '
            'widths that differ:.1% | loss, ms:.3f | loss, MACs:.3f'
        )
        print(rates(table), flush=True)
        every = (prepared(args.data, number, args.images) for number in range(args.seeds))
        rows = [row for seed in every for row in plans(seed, args.speeds, table)]
        print(Table.under(header, rows).to_markdown())
        return
    print(as_text(every_cell(args, table, cell)))


if __name__ == '__main__':
    main()
