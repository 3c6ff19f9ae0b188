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
from pathlib import Path
from typing import TYPE_CHECKING

from pruned_perception.cli.arguments import at_least
from pruned_perception.cli.output import say

if TYPE_CHECKING:
    from pruned_perception.benchmark.engine import Network
    from pruned_perception.inference.latency_table import LatencyTable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('model', help='bundle, family (its dense member) or ONNX file, in float')
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
    if args.check:
        others = engine.load_networks([resolve_model(each) for each in args.check])
        say(_checked(table, [network, *others], args.rounds))
    return 0


def _description(file: Path, table: LatencyTable) -> str:
    target, whole = table.target, table.whole
    counts = sum(len(row) for each in table.times for row in each.ms)
    return (
        f'{file}: {whole.name} on {target.processor} ({target.arithmetic}), {target.engine}, '
        f'{target.provider}, {target.threads} thread{"s" * (target.threads > 1)}: '
        f'{whole.ms:.3g} ms, {whole.share:.0%} of it in {len(whole.layers)} convolutions\n'
        f'{len(table.times)} geometries at {counts} widths; channels go in blocks of {table.block}'
    )


def _checked(table: LatencyTable, networks: list[Network], rounds: int) -> str:
    """Return a table of predicted and measured latency, all measured by turns."""
    from pruned_perception._tables import Table
    from pruned_perception.benchmark import engine
    from pruned_perception.benchmark.profile import layers_of, target

    table.check_target(target(table.target.threads))
    threads = table.target.threads
    times = engine.measure(networks, rounds=rounds, runs=5, threads=threads)
    first, *others = engine.compare(networks, times)
    dense = table.predict(table.whole.layers)
    rows = []
    for each in others:
        predicted = table.predict(layers_of(each.network, threads)[0])
        faster = dense / predicted
        low, high = each.speedup_interval or (float('nan'),) * 2
        rows.append(
            (
                each.network.name,
                predicted,
                each.latency.p50,
                f'{faster:.2f}',
                f'{each.speedup:.2f} [{low:.2f}, {high:.2f}]',
                f'{each.speedup / faster - 1:+.0%}',
            )
        )
    header = (
        f' | ms predicted:.3f | ms, p50:.3f | × {first.network.name}, predicted | measured | off by'
    )
    return Table.under(header, rows).to_text()
