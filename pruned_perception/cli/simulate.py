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

"""`pruned-perception simulate`: generate a data set of the simulated warehouse."""

from __future__ import annotations

import argparse
from pathlib import Path

from pruned_perception._tables import Table
from pruned_perception.cli.arguments import at_least


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments."""
    from pruned_perception.simulation.splits import SPLITS

    parser.add_argument(
        '--split', choices=list(SPLITS), required=True, help='which part of the data'
    )
    parser.add_argument('--frames', type=at_least(1), required=True, help='number of images')
    parser.add_argument(
        '--seed', type=at_least(0), default=0, help='same seed, same data (default: 0)'
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        help='folder to write; an interrupted data set in it is completed',
    )


def run(args: argparse.Namespace) -> int:
    """Generate the data set and print its histogram of sizes and labels."""
    from rich import progress
    from rich.console import Console

    from pruned_perception.simulation import dataset

    spec = dataset.DatasetSpec(args.split, args.seed, args.frames)
    columns = (
        progress.TextColumn('{task.description}'),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f'{args.split} frames', total=args.frames)
        summary = dataset.generate(spec, args.out, lambda done: bar.update(task, completed=done))
    boxes = summary['boxes']
    print(f'{summary["frames"]} frames, {boxes["count"]} boxes, {boxes["crowd"]} crowd boxes')
    for title, counted in (('label', 'per_label'), ('longer side (px)', 'per_size')):
        print(Table.under(f'{title} | boxes:d', list(boxes[counted].items())).to_text())
    print(f'below 48 px: {boxes["below_48_px"]:.1%}')
    print(f'sha256 {summary["sha256"]}')
    return 0
