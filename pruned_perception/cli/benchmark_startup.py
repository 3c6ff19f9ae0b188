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

"""`pruned-perception benchmark startup`: process start to first detection, and memory."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from pruned_perception.benchmark import overhead, startup
from pruned_perception.cli.arguments import at_least, not_negative
from pruned_perception.cli.benchmark_result import add_model, write_result
from pruned_perception.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_model(parser)
    parser.add_argument('--pairs', type=at_least(1), default=6, help='starts of each (6)')
    parser.add_argument(
        '--seconds', type=not_negative, default=5.0, help='run on before memory is read (5)'
    )
    parser.add_argument('--output', type=Path, metavar='FILE', help='write the result as JSON')


def run(args: argparse.Namespace) -> int:
    """Measure and print; an error if PyTorch was loaded."""
    values = {key: value for key, value in vars(args).items() if key != 'output'}
    print(
        f'{"first detection s":>18} {"bare, ready":>12} {"ratio":>6} {"bare, image":>12} '
        f'{"ratio":>6} {"RSS MB":>8} {"peak":>7}'
    )
    result = startup.measure(startup.Setup(**values), _print_pair)
    for name, until in (('start_ratio', 'ready'), ('image_ratio', 'with its first image')):
        ratio = result[name]
        print(
            f'start to first detection : bare script {until}, median of {len(ratio["pairs"])} '
            f'pairs: {ratio["median"]:.2f} ({overhead.interval_text(ratio["interval"])})'
        )
    resident = statistics.median(pair['resident_mb'] for pair in result['pairs'])
    least = statistics.median(pair['bare_mb'] for pair in result['pairs'])
    print(
        f'resident memory, median: {resident:.0f} MB, of the bare script {least:.0f} MB; '
        f'PyTorch loaded: {_torch(result)}'
    )
    write_result(result, args.output)
    if _torch(result):
        raise UserError('the perception node has loaded PyTorch, which it must not need')
    return 0


def _torch(result: dict) -> bool:
    return any(pair['torch'] for pair in result['pairs'])


def _print_pair(pair: startup.Pair) -> None:
    print(
        f'{pair.first_detection_s:18.2f} {pair.bare_s:12.2f} '
        f'{pair.first_detection_s / pair.bare_s:6.2f} {pair.bare_image_s:12.2f} '
        f'{pair.first_detection_s / pair.bare_image_s:6.2f} {pair.resident_mb:8.0f} '
        f'{pair.resident_peak_mb:7.0f}',
        flush=True,
    )
