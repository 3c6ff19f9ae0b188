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

"""`pruned-perception compare`: methods × budgets × seeds, into one table and plot."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pruned_perception.cli.arguments import (
    add_device,
    at_least,
    compute_on,
    positive,
    refuse_several_processes,
)
from pruned_perception.cli.output import check_output, check_yaml
from pruned_perception.cli.pruning_inputs import emit
from pruned_perception.errors import UserError

if TYPE_CHECKING:
    from pruned_perception.compare.engines import Engine
    from pruned_perception.compare.study import Study

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `compare`."""
    parser.add_argument('file', type=Path, help='YAML file of the comparison')
    parser.add_argument(
        '--results',
        type=Path,
        metavar='DIR',
        help='folder of the results (default: FILE with .results in place of .yaml)',
    )
    parser.add_argument(
        '--jobs',
        type=at_least(1),
        metavar='N',
        help='cells at a time, one thread each (default: 1; with Ray as many as the cluster takes)',
    )
    add_device(parser)
    parser.add_argument(
        '--engine',
        choices=('local', 'ray'),
        default='local',
        help="who makes the cells: this machine's processes, or a Ray cluster that is running "
        '(default: %(default)s)',
    )
    cluster = parser.add_argument_group('with --engine ray')
    cluster.add_argument(
        '--address',
        metavar='HOST:PORT',
        help='the head (default: $RAY_ADDRESS, else the cluster that this machine is part of)',
    )
    cluster.add_argument(
        '--cpus', type=positive, metavar='N', help='what Ray sets aside for a cell (default: 1)'
    )
    cluster.add_argument(
        '--gpus', type=positive, metavar='SHARE', help='likewise, such as 0.25 (default: none)'
    )
    parser.add_argument(
        '--test',
        action='store_true',
        help='measure all results on the test data, which no choice must see, once',
    )
    parser.add_argument('--table', action='store_true', help='only print the table of results')
    parser.add_argument(
        '--times',
        action='store_true',
        help='CPU minutes in the table as well, which are others each time',
    )
    parser.add_argument('--plot', type=Path, metavar='FILE', help='draw the results: .png or .svg')
    parser.add_argument('--list', action='store_true', help='only print the names of the cells')
    parser.add_argument('--cell', metavar='NAME', help='make this one cell in this process')
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.add_argument('--quiet', action='store_true', help='no progress bar')


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what shows without PyTorch."""
    refuse_several_processes('compare')
    check_yaml(args.file)
    check_output(args.plot)


def run(args: argparse.Namespace) -> int:
    """Make what is missing, then print the table; 1 where a cell failed."""
    from pruned_perception.cli.output import say
    from pruned_perception.cli.progress import Progress
    from pruned_perception.compare.runner import run_cells
    from pruned_perception.compare.study import read_study

    study = read_study(args.file)
    results = args.results or args.file.with_suffix('.results')
    if args.list:
        print('\n'.join(cell.name for cell in study.cells))
        return 0
    if args.cell is not None:
        return _run_cell(study, results, args)

    if not args.table:
        study.check_functions()
    from pruned_perception.compare.plot import draw
    from pruned_perception.compare.table import make_table

    failures: dict[str, str] = {}
    if not args.table:
        with nullcontext() if args.quiet else Progress(args.file.stem) as bar:
            failures = run_cells(
                study,
                results,
                _engine(args),
                test=args.test,
                device=args.device,
                progress=None
                if bar is None
                else lambda share, note: bar.phase(args.file.stem, share, f'{share:.0%}: {note}'),
                say=lambda remark: say(remark, file=sys.stderr),
            )
    table = make_table(study, results, times=args.times)
    emit(args.json, table.to_dict(), table.to_text())
    if args.plot is not None:
        draw(table, args.plot)
    if failures:  # the reasons stand in the table
        print(f'failed: {len(failures)} of {len(study.cells)} cells; for each there is a '
              f'log: {results}/NAME.log', file=sys.stderr)  # fmt: skip
    return 1 if failures else 0


def _engine(args: argparse.Namespace) -> Engine:
    """Return who makes the cells; raise UserError where options are another engine's."""
    if args.engine == 'ray':
        from pruned_perception.compare.engines.ray_cluster import RayEngine

        cpus, gpus = args.cpus or 1.0, args.gpus or 0.0
        return RayEngine(args.address, cpus=cpus, gpus=gpus, jobs=args.jobs)

    from pruned_perception.compare.engines.local import LocalEngine

    for name in ('address', 'cpus', 'gpus'):
        if getattr(args, name) is not None:
            raise UserError(f'--{name}: is for --engine ray')
    compute_on(args.device, quiet=True)  # said once, before every cell would
    return LocalEngine(args.jobs or 1)


def _run_cell(study: Study, results: Path, args: argparse.Namespace) -> int:
    """Make one cell, with one thread; the exit status alone says how it ended."""
    from pruned_perception._processes import Interrupted
    from pruned_perception.cli.progress import Progress
    from pruned_perception.compare.cell import run_cell
    from pruned_perception.training.compute import use_one_thread

    use_one_thread()
    cell = study.cell(args.cell)
    compute = compute_on(args.device)
    with nullcontext() if args.quiet else Progress(cell.name) as bar:

        def report(title: str, share: float, remark: str) -> None:
            if bar is not None:
                bar.phase(cell.name, share, f'{title}, {share:.0%}, {remark}')

        try:
            result = run_cell(cell, results, test=args.test, report=report, compute=compute)
        except Interrupted:
            print(f'{cell.name}: interrupted; the same command goes on', file=sys.stderr)
            return INTERRUPTED
    emit(args.json, result.to_dict(), result.to_text())
    return 0
