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

"""`pruned-perception train`: run one experiment, or resume it."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

from pruned_perception.cli.arguments import add_compute, at_least, computing, positive
from pruned_perception.cli.output import check_yaml
from pruned_perception.environment import cache_folder

INTERRUPTED = 130


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where data and runs are."""
    cache = cache_folder()
    parser.add_argument(
        '--data',
        type=Path,
        default=cache,
        metavar='DIR',
        help='folder of the data sets that the experiments name (default: %(default)s)',
    )
    parser.add_argument(
        '--runs',
        type=Path,
        default=cache / 'runs',
        metavar='DIR',
        help='folder of the runs, one sub-folder per experiment (default: %(default)s)',
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `train`."""
    parser.add_argument(
        'experiment',
        type=Path,
        help='YAML file, like config/experiments/warehouse-dense.yaml',
    )
    add_folders(parser)
    parser.add_argument(
        '--cpu-minutes', type=positive, metavar='X', help="CPU minutes instead of the file's budget"
    )
    parser.add_argument(
        '--threads', type=at_least(1), default=1, help='threads (default: %(default)s)'
    )
    add_compute(parser)
    parser.add_argument('--quiet', action='store_true', help='no progress bar')


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what shows without PyTorch."""
    check_yaml(args.experiment)


def run(args: argparse.Namespace) -> int:
    """Train; an interrupted run resumes with the same command."""
    from pruned_perception._processes import Interrupted
    from pruned_perception.cli.progress import Progress
    from pruned_perception.training.budget import TrainingBudget
    from pruned_perception.training.compute import use_one_thread
    from pruned_perception.training.detector.experiment import ExperimentError, read_experiment
    from pruned_perception.training.detector.runs import Folders, run_experiment

    if args.cpu_minutes is not None and not args.cpu_minutes > 0:
        raise ExperimentError(f'--cpu-minutes: must be > 0, got {args.cpu_minutes}')
    use_one_thread(args.threads)
    experiment = read_experiment(args.experiment)
    folders = Folders(args.experiment.parent, args.data.expanduser(), args.runs.expanduser())
    budget = TrainingBudget(cpu_minutes=args.cpu_minutes) if args.cpu_minutes else None
    with computing(args) as compute:
        first = compute.processes.rank == 0
        silent = args.quiet or not first
        try:
            with nullcontext() if silent else Progress(experiment.name) as bar:
                outcome = run_experiment(
                    experiment,
                    folders,
                    budget=budget,
                    report=bar.phase if bar else None,
                    compute=compute,
                )
        except Interrupted as stop:
            if first:
                print(f'{experiment.name}: interrupted {stop}; run the same command again')
            return INTERRUPTED
    if first:
        minutes = outcome.cpu_seconds / 60
        steps, path = outcome.steps, outcome.checkpoint
        print(f'{experiment.name}: {steps} steps, {minutes:.1f} CPU minutes: {path}')
    return 0
