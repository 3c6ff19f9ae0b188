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

"""`pruned-perception profile`: what a network's layers cost on this machine, at which widths."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pruned_perception.cli.arguments import at_least
from pruned_perception.cli.output import say

if TYPE_CHECKING:
    from pruned_perception.benchmark.engine import Network, NetworkLatency
    from pruned_perception.bundle import Bundle
    from pruned_perception.inference.latency_table import Convolution, LatencyTable

    Row = tuple[str, float | None, float, str | None, str, str]


RUNS = 5  # of --check, in a round
WORTH = 1.1
"""× faster alone, from where 8 bits are worth a trial: the rest of a network gains nothing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('model', help='bundle, family (its dense member) or ONNX file')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('table.json'),
        metavar='FILE',
        help='the table (%(default)s); an interrupted profile goes on there',
    )
    parser.add_argument('--threads', type=at_least(1), default=1, help='of a run (%(default)s)')
    parser.add_argument(
        '--check',
        nargs='+',
        metavar='MODEL',
        help='also predict these bundles, families or ONNX files, run them by turns and compare',
    )
    parser.add_argument(
        '--record',
        action='store_true',
        help='write what --check predicts and measures into the manifests of its bundles',
    )
    parser.add_argument('--rounds', type=at_least(6), default=20, help='of --check (%(default)s)')


def run(args: argparse.Namespace) -> int:
    """Measure, say what was found, compare."""
    from pruned_perception.benchmark import engine
    from pruned_perception.benchmark.profile import profile
    from pruned_perception.bundle import resolve_model
    from pruned_perception.cli.progress import Progress

    network = engine.load_networks([resolve_model(args.model)])[0]
    with Progress(f'profiling {network.name}') as bar:
        table = profile(network, args.out, threads=args.threads, on_progress=bar.share)
    say(_description(args.out, table))
    say(_int8(table))
    say(_low_rank(table))
    if args.check:
        _check(table, network, args)
    return 0


def _description(file: Path, table: LatencyTable) -> str:
    from pruned_perception.inference.providers import Execution

    target, whole = table.target, table.whole
    provider = Execution(target.provider, whole.nodes).to_text()
    counts = sum(len(row) for each in table.times for row in each.ms)
    return (
        f'{file}: {whole.name} on {target.processor} ({target.arithmetic}), {target.engine}, '
        f'{provider}, {target.threads} thread{"s" * (target.threads > 1)}: '
        f'{whole.ms:.3g} ms, {whole.share:.0%} of it in {len(whole.layers)} convolutions\n'
        f'{len(table.times)} geometries at {counts} widths; channels go in blocks of {table.block}'
    )


def _int8(table: LatencyTable) -> str:
    """Say in one sentence whether 8 bits pay on the target."""
    gain, arithmetic = table.int8_gain, table.target.arithmetic
    if gain is None:
        return 'INT8: not measured by the version that made this table; make it again'
    if gain > WORTH:
        return (
            f'INT8 pays on this processor: convolutions alone are {gain:.2f} times as fast as in '
            f'float ({arithmetic}); `pruned-perception quantize` makes such a bundle'
        )
    return (
        f'INT8 does not pay on this processor: convolutions alone are {gain:.2f} times as fast as '
        f'in float ({arithmetic}); pruning is what helps here'
    )


def _low_rank(table: LatencyTable) -> str:
    """Say in one sentence where low rank is faster on the target."""
    from pruned_perception.inference.latency_table import LatencyTableError, full_rank

    full = [each for each in table.whole.layers if not each.geometry.depthwise]
    try:
        faster = [(full_rank(each), table.faster_ranks(each)) for each in full]
    except LatencyTableError:
        return 'low rank: not measured by the version that made this table; make it again'
    most = [max(ranks, default=0) / rank for rank, ranks in faster]
    half, any_rank = sum(each >= 0.5 for each in most), sum(each > 0 for each in most)
    if not any_rank:
        return 'Low rank does not pay on this processor: no convolution is faster as two'
    return (
        f'Low rank: as two of half their rank, {half} of {len(full)} convolutions are faster on '
        f'this processor; at some rank, {any_rank}'
    )


def _check(table: LatencyTable, network: Network, args: argparse.Namespace) -> None:
    """Print predicted and measured latency, all measured by turns; record them."""
    from pruned_perception._tables import Table
    from pruned_perception.benchmark import engine
    from pruned_perception.benchmark.profile import layers_of, target
    from pruned_perception.bundle import record_evidence, resolve_model

    paths = [resolve_model(each) for each in args.check]
    networks = [network, *engine.load_networks(paths)]
    bundles = _bundles(paths) if args.record else []
    threads = table.target.threads
    sessions = engine.open_sessions(networks, threads=threads)
    table.check_target(target(threads))
    configuration = {
        'rounds': args.rounds,
        'runs_per_round': RUNS,
        'threads': threads,
        'table_of': table.whole.name,
    }
    times = engine.measure(
        networks, rounds=args.rounds, runs=RUNS, threads=threads, sessions=sessions
    )
    results = engine.compare(networks, times, sessions)
    rows = []
    for which, each in enumerate(results[1:], 1):
        predicted, why = predicted_ms(table, layers_of(each.network, threads)[0])
        rows.append(_row(each, predicted, table.predict(table.whole.layers), why))
        if bundles:
            entry = engine.latency_entry(results, which, configuration)
            entry = {**entry, 'predicted_ms': predicted}
            record_evidence(bundles[which - 1], 'latency', entry, keys=('configuration',))
    header = f' | ms predicted:.3f | ms, p50:.3f | × {network.name}, predicted | measured | off by'
    say(Table.under(header, rows).to_text())


def _bundles(paths: Sequence[Path]) -> list[Bundle]:
    """Return the bundles whose networks `load_networks` returns, in its order."""
    from pruned_perception.bundle import is_family, load_bundle, load_family

    found: list[Bundle] = []
    for path in paths:
        found += load_family(path).members if is_family(path) else (load_bundle(path),)
    return found


def predicted_ms(table: LatencyTable, layers: Sequence[Convolution]) -> tuple[float | None, str]:
    """Return the milliseconds, or None and the layer that the table does not hold."""
    from pruned_perception.inference.latency_table import LatencyTableError

    for layer in layers:
        if not table.holds(layer.geometry):  # such as those in 8 bits, by a table of float
            return None, f'not in the table: {layer.geometry}'
    try:
        return table.predict(layers), ''
    except LatencyTableError:
        return None, 'wider than the table'


def _row(each: NetworkLatency, predicted: float | None, dense: float, why: str) -> Row:
    low, high = each.speedup_interval or (float('nan'),) * 2
    measured = f'{each.speedup:.2f} [{low:.2f}, {high:.2f}]'
    if predicted is None:
        return each.network.name, None, each.latency.p50, None, measured, why
    faster = dense / predicted
    off = f'{each.speedup / faster - 1:+.0%}'
    return each.network.name, predicted, each.latency.p50, f'{faster:.2f}', measured, off
