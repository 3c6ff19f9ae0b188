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

"""`pruned-perception benchmark engine`: networks in the engine alone, interleaved in one run."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from pruned_perception._io import write_text
from pruned_perception.benchmark import engine
from pruned_perception.bundle import resolve_model
from pruned_perception.cli.arguments import at_least, execution_provider
from pruned_perception.cli.output import say
from pruned_perception.inference.providers import CPU


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'models', nargs='+', help='bundles, families (all members) or ONNX files; first = baseline'
    )
    parser.add_argument('--rounds', type=at_least(2), default=20, help='turns of every model (20)')
    parser.add_argument('--runs', type=at_least(1), default=20, help='runs of a turn (20)')
    parser.add_argument('--threads', type=at_least(1), default=1, help='threads of one run (1)')
    parser.add_argument(
        '--execution-provider',
        dest='providers',
        nargs='+',
        type=execution_provider,
        default=[CPU],
        metavar='NAME',
        help='where they run, all of them on each of these by turns (cpu)',
    )
    parser.add_argument('--spin', action='store_true', help='let waiting threads spin')
    parser.add_argument(
        '--seed', type=at_least(0), default=0, help='of inputs, order and intervals (0)'
    )
    parser.add_argument(
        '--json',
        type=Path,
        nargs='?',
        const=Path('-'),
        metavar='FILE',
        help='write the result there too, with the environment; without FILE print it instead',
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    loaded = engine.load_networks([resolve_model(model) for model in args.models])
    networks = [
        replace(
            each,
            name=each.name if args.providers == [CPU] else f'{each.name} ({name})',
            execution_provider=name,
        )
        for name in args.providers
        for each in loaded
    ]
    sessions = engine.open_sessions(networks, threads=args.threads, allow_spinning=args.spin)
    configuration = {
        'rounds': args.rounds,
        'runs_per_round': args.runs,
        'warm_up': 'one round, and one run before each turn',
        'threads': args.threads,
        'execution_providers': args.providers,
        'allow_spinning': args.spin,
        'seed': args.seed,
        'speedup': 'median over rounds of (median of the first / median of this one)',
    }
    with _progress('measuring') as progress:
        times = engine.measure(
            networks,
            rounds=args.rounds,
            runs=args.runs,
            threads=args.threads,
            allow_spinning=args.spin,
            seed=args.seed,
            on_progress=progress.share if progress is not None else lambda share: None,
            sessions=sessions,
        )
    results = engine.compare(networks, times, sessions)
    content = json.dumps(engine.as_json(results, configuration), indent=2)
    if args.json == Path('-'):
        print(content)
        return 0
    print(engine.as_table(results))
    for each in sessions:
        if each.execution.warning:
            say(each.execution.warning)
    if args.json is not None:
        write_text(args.json, content + '\n')
    return 0


def _progress(title: str) -> AbstractContextManager[Any]:
    """Return a bar on standard error where that is a terminal, None in its place elsewhere."""
    if not sys.stderr.isatty():
        return nullcontext()
    from pruned_perception.cli.progress import Progress

    return Progress(title)
