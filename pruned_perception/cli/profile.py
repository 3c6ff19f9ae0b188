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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruned_perception.cli.arguments import add_execution_provider, at_least
from pruned_perception.cli.output import say

if TYPE_CHECKING:
    from pruned_perception.benchmark.engine import Network
    from pruned_perception.inference.latency_table import LatencyTable


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
    add_execution_provider(parser)
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

    network = replace(
        engine.load_networks([resolve_model(args.model)])[0],
        execution_provider=args.execution_provider,
    )
    with Progress(f'profiling {network.name}') as bar:
        table = profile(network, args.out, threads=args.threads, on_progress=bar.share)
    say(_description(args.out, table))
    say(_int8(table))
    if args.check:
        others = engine.load_networks([resolve_model(each) for each in args.check])
        say(_checked(table, [network, *others], args.rounds, args.execution_provider))
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


def _checked(
    table: LatencyTable, networks: list[Network], rounds: int, execution_provider: str
) -> str:
    """Return a table of predicted and measured latency, all measured by turns."""
    from pruned_perception._tables import Table
    from pruned_perception.benchmark import engine
    from pruned_perception.benchmark.profile import layers_of, target

    threads = table.target.threads
    networks = [replace(each, execution_provider=execution_provider) for each in networks]
    sessions = engine.open_sessions(networks, threads=threads)
    table.check_target(target(threads, sessions[0].execution.provider))
    times = engine.measure(networks, rounds=rounds, runs=5, threads=threads, sessions=sessions)
    first, *others = engine.compare(networks, times, sessions)
    dense = table.predict(table.whole.layers)
    rows: list[tuple[Any, ...]] = []
    for each in others:
        layers = layers_of(each.network, threads)[0]
        missing = [layer.geometry for layer in layers if not table.holds(layer.geometry)]
        if missing:  # such as float layers by a table of 8 bits
            rows.append(
                (each.network.name, None, each.latency.p50, str(missing[0]), '', 'no table')
            )
            continue
        predicted = table.predict(layers)
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
