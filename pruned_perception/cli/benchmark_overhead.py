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

"""`pruned-perception benchmark overhead`: perception node against echo node, interleaved."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from pruned_perception.benchmark import overhead
from pruned_perception.cli.arguments import at_least, positive
from pruned_perception.cli.benchmark_result import add_model, write_result
from pruned_perception.errors import UserError

LEAST_FRAMES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_model(parser)
    parser.add_argument('--pairs', type=at_least(1), default=6, help='runs of each node (6)')
    parser.add_argument('--frames', type=at_least(10), default=300, help='frames of a run (300)')
    parser.add_argument('--warm-up', type=at_least(0), default=60, help='of these, left out (60)')
    parser.add_argument('--rate', type=positive, default=30.0, help='frames per second (30)')
    parser.add_argument('--width', type=at_least(16), default=640)
    parser.add_argument('--height', type=at_least(16), default=480)
    parser.add_argument(
        '--no-profile',
        dest='profile',
        action='store_false',
        help="the middleware's default transports instead of config/fastdds.xml",
    )
    parser.add_argument('--output', type=Path, metavar='FILE', help='write the result as JSON')


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    check_frames(args)
    values = {key: value for key, value in vars(args).items() if key != 'output'}
    setup = overhead.Setup(**values)
    print(
        f'{setup.pairs} pairs of {setup.frames} frames, {setup.width} × {setup.height} at '
        f'{setup.rate:g} Hz, the first {setup.warm_up} of each are warm-up; milliseconds\n'
        f'{"node":16} {"e2e_receive":>23} {"inference":>10} {"wait":>6} {"overhead":>23}   '
        'accounts\n'
        f'{"":16} {"p50":>7} {"p90":>7} {"p99":>7} {"p50":>10} {"p50":>6} '
        f'{"p50":>7} {"p90":>7} {"p99":>7}',
        flush=True,
    )
    result = overhead.measure(setup, _print_run)
    _print_stages(result['runs'])
    _print_ratios(result['overhead_ratio'])
    write_result(result, args.output)
    return 0 if all(each['balanced'] for each in result['runs']) else 1


def check_frames(args: argparse.Namespace) -> None:
    """Raise UserError where warm-up leaves too few frames to measure."""
    if args.frames < args.warm_up + LEAST_FRAMES:
        raise UserError(
            f'--frames {args.frames}: {args.warm_up} of them are warm-up, and {LEAST_FRAMES} are '
            f'needed after it: give --frames {args.warm_up + LEAST_FRAMES} or more, or a smaller '
            '--warm-up'
        )


def _print_run(run: overhead.Run) -> None:
    e2e, over, counts = run.e2e_receive, run.overhead, run.counts
    print(
        f'{run.node:16} {e2e.p50:7.2f} {e2e.p90:7.2f} {e2e.p99:7.2f} {run.inference.p50:10.2f} '
        f'{run.engine_wait.p50:6.2f} {over.p50:7.2f} {over.p90:7.2f} {over.p99:7.2f}   '
        f'sent {run.sent} = published {counts["published"]} + superseded {counts["superseded"]} '
        f'+ stale {counts["stale"]} + error {counts["error"]} + middleware loss {run.loss}'
        f'{"" if run.balanced else "  DOES NOT ADD UP"}; {run.arrived} arrived, {run.boxes} boxes, '
        f'{run.rss_mb:.0f} MB'
        f'{"; SATURATED" if run.saturated else ""}',
        flush=True,
    )


def _print_stages(runs: list[dict[str, Any]]) -> None:
    print('stages inside the node, p50, median over the runs:')
    for node in dict.fromkeys(run['node'] for run in runs):
        medians = [run['stages_p50'] for run in runs if run['node'] == node]
        texts = [
            f'{stage} {statistics.median(each[stage] for each in medians):.2f}'
            for stage in medians[0]
        ]
        print(f'  {node:16} {", ".join(texts)}')


def _print_ratios(ratios: dict[str, Any]) -> None:
    for name, ratio in ratios.items():
        print(
            f'overhead {name}, perception : echo, median of {len(ratio["pairs"])} pairs: '
            f'{ratio["median"]:.2f} ({overhead.interval_text(ratio["interval"])})'
        )
