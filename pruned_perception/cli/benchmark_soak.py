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

"""`pruned-perception benchmark soak`: whether the node grows while it runs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruned_perception.benchmark import soak
from pruned_perception.cli.arguments import at_least, positive
from pruned_perception.cli.benchmark_result import add_model, write_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_model(parser)
    parser.add_argument('--minutes', type=positive, default=30.0, help='length of the run (30)')
    parser.add_argument('--rate', type=at_least(1), default=30, help='frames per second (30)')
    parser.add_argument('--every', type=positive, default=2.0, help='seconds between looks (2)')
    parser.add_argument(
        '--control',
        action='store_true',
        help='look at a bare rclpy publisher of as many diagnostics beside it, too',
    )
    parser.add_argument('--output', type=Path, metavar='FILE', help='write the result as JSON')


def run(args: argparse.Namespace) -> int:
    """Run, print; 1 where memory rises, or descriptors or threads are not constant."""
    values = {key: value for key, value in vars(args).items() if key != 'output'}
    columns = ('minute', 'RSS MB', 'descriptors', 'threads', 'detections/s')
    print('  '.join(f'{each:>12}' for each in columns), flush=True)
    seen: list[soak.Sample] = []

    def on_sample(sample: soak.Sample) -> None:
        if not seen or sample.seconds - seen[-1].seconds >= 6 * args.minutes:
            print(
                f'{sample.seconds / 60:12.1f}  {sample.resident_mb:12.1f}  '
                f'{sample.descriptors:12d}  {sample.threads:12d}  '
                f'{sample.detections / sample.seconds:12.1f}',
                flush=True,
            )
            seen.append(sample)

    result = soak.measure(soak.Setup(**values), on_sample)
    constant = all(result[name][0] == result[name][1] for name in ('descriptors', 'threads'))
    print(
        f'memory {_memory(result)}\n'
        f'descriptors {result["descriptors"][0]} … {result["descriptors"][1]}, '
        f'threads {result["threads"][0]} … {result["threads"][1]}, '
        f'{result["detections_per_s"]:.1f} detections a second'
    )
    if result['control'] is not None:
        print(f'control, a bare publisher of diagnostics: memory {_memory(result["control"])}')
    write_result(result, args.output)
    return 1 if _rises(result) or not constant else 0


def _rises(found: Mapping[str, Any]) -> bool:
    return bool(found['memory_trend']['interval'][0] > 0)


def _memory(found: Mapping[str, Any]) -> str:
    least, most = found['resident_mb']
    slope, (low, high) = found['memory_trend']['per_hour'], found['memory_trend']['interval']
    return (
        f'{least:.1f} … {most:.1f} MB, trend {slope:+.2f} MB an hour (95 % interval {low:+.2f} … '
        f'{high:+.2f}): {"rises" if _rises(found) else "no growth seen"}'
    )
