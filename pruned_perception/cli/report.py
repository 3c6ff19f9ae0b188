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

"""`pruned-perception report`: the page and the summary of a demonstration, made again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pruned_perception.cli.arguments import at_least
from pruned_perception.cli.output import say

if TYPE_CHECKING:
    from pruned_perception.benchmark.demo import Demonstration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'folder', type=Path, nargs='?', default=Path('out/demo'), help='output of `demo`'
    )
    parser.add_argument(
        '--pictures', type=at_least(1), default=6, metavar='N', help='annotated frames (default: 6)'
    )


def run(args: argparse.Namespace) -> int:
    """Write the pictures and the page, print the summary."""
    from pruned_perception.benchmark.demo import load_demonstration
    from pruned_perception.benchmark.report import write_report

    demonstration = load_demonstration(args.folder)
    print_summary(demonstration, write_report(demonstration, pictures=args.pictures))
    return 0


def print_summary(demonstration: Demonstration, page: Path) -> None:
    """Print the models side by side, and where the results are."""
    from rich.console import Console

    from pruned_perception.benchmark.demo import BAG, LATENCY
    from pruned_perception.benchmark.report import FRAMES, summary

    # In a log or a pipe the table must not be folded to 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(summary(demonstration).to_rich())
    folder = demonstration.folder
    size = sum(file.stat().st_size for file in (folder / BAG).iterdir()) >> 20
    for what, path in (
        ('report', page),
        ('figures', folder / LATENCY),
        ('annotated frames', folder / FRAMES),
        (f'bag, {size} MiB', folder / BAG),
    ):
        say(f'{what}: {path}')
