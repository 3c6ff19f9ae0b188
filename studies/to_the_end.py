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

"""The warehouse family and its controls, each trained until validation no longer rises.

`python -m studies.to_the_end --device cuda`: one command for a GPU, which goes on where it was. It
measures images per second first (`training_speed`), then trains the dense network, its members and
their controls from scratch: each for so many epochs, then anew for twice as many, and again, until
AP50 on all validation frames gains less than `--gain` points. What is pruned is the best of its
parent; a control has the widths of its member. The table, on the test frames that no choice has
seen, says what that leaves of "control above member". Data are made by
`pruned-perception models --steps data`.

Everything trained is kept below `--out`; delete a folder there to train that one anew.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from pruned_perception._processes import Interrupted
from pruned_perception._tables import Table
from pruned_perception.cli.arguments import add_compute, computing, positive
from pruned_perception.cli.progress import Progress
from pruned_perception.cli.train import INTERRUPTED
from pruned_perception.environment import cache_folder
from pruned_perception.pruning.statistics import crossed_difference
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.checkpoint import read_checkpoint
from pruned_perception.training.compute import Compute, use_one_thread
from pruned_perception.training.detector.checkpoint import detector_from
from pruned_perception.training.detector.family import FamilySpec, read_family_spec
from pruned_perception.training.detector.runs import Folders, run_experiment
from pruned_perception.training.detector.task import accuracy_on, labelled_frames
from pruned_perception.training.outcomes import Figures
from pruned_perception.training.task import figures_of

FAMILY = Path('config/experiments/warehouse.yaml')


@dataclass(frozen=True)
class Trained:
    """The best of the trainings of one experiment."""

    checkpoint: Path
    epochs: float
    validation: float
    """AP50 in points, on all validation frames."""
    rose: bool
    """Whether it still did when the epochs were at an end."""


class Family:
    """The experiments of a family, each trained to its end, its ancestor first."""

    def __init__(self, args: argparse.Namespace, compute: Compute) -> None:
        self.args, self.compute = args, compute
        self.spec: FamilySpec = read_family_spec(args.family)
        self.data, self.out = args.data.expanduser(), args.out
        self.done: dict[str, Trained] = {}

    def trained(self, name: str) -> Trained:
        """Return the best network of an experiment, whose ancestors are trained before it."""
        if name in self.done:
            return self.done[name]
        experiment = self.folders('').experiment(name)
        source = experiment.parent or experiment.control_of
        ancestor = None if source is None else self.trained(source)
        best: Trained | None = None
        epochs = self.args.epochs
        while epochs <= self.args.most_epochs:
            folders = self.folders(f'{name}, {epochs:g} epochs')
            if source is not None and ancestor is not None:
                wanted = folders.final(source)
                wanted.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ancestor.checkpoint, wanted)
            with nullcontext() if self.args.quiet else Progress(name) as bar:
                outcome = run_experiment(
                    experiment,
                    folders,
                    budget=TrainingBudget(epochs=epochs),
                    report=bar.phase if bar else None,
                    compute=self.compute,
                )
            found = self.figures(outcome.checkpoint, self.data / experiment.data['validation'])
            points = 100 * found['ap50']
            print(f'{name}: {epochs:g} epochs, validation AP50 {points:.2f}', flush=True)
            rose = best is None or points >= best.validation + self.args.gain
            if best is None or points > best.validation:
                best = Trained(outcome.checkpoint, epochs, points, rose)
            if not rose:
                best = Trained(best.checkpoint, best.epochs, best.validation, rose=False)
                break
            epochs *= 2
        assert best is not None
        self.done[name] = best
        return best

    def folders(self, run: str) -> Folders:
        """Return where things are in one training."""
        return Folders(self.args.family.parent, self.data, self.out / run)

    def figures(self, checkpoint: Path, data: Path) -> Figures:
        """Return the accuracy of a network on all frames of a data set."""
        content = read_checkpoint(checkpoint)
        frames = labelled_frames(data, content, checkpoint)
        network = self.compute.placed(detector_from(content, checkpoint))
        return figures_of(accuracy_on(frames, None), network)

    def table(self) -> Table:
        """Return what became of every member and its control, on the test frames."""
        test = self.data / self.spec.name / 'test'
        rows = []
        for member in self.spec.members:
            mine = self.trained(member.experiment)
            own = self.figures(mine.checkpoint, test)
            row = [member.name, _epochs(mine), 100 * own['ap50']]
            if member.control is not None:
                theirs = self.trained(member.control)
                other = self.figures(theirs.checkpoint, test)
                found = crossed_difference([other.outcomes], [own.outcomes])
                low, high = 100 * found.low, 100 * found.high
                row += [_epochs(theirs), 100 * other['ap50']]
                row += [f'{100 * found.mean:+.1f} [{low:+.1f}, {high:+.1f}]']
            rows.append(row)
        header = (
            'member | epochs | AP50:.1f | control, epochs | control, AP50:.1f | control − member'
        )
        return Table.under(header, rows)


def _epochs(trained: Trained) -> str:
    return f'{trained.epochs:g}{", still rising" if trained.rose else ""}'


def measure_speed(args: argparse.Namespace) -> str:
    """Return the table of images per second; it is measured once."""
    path = args.out / 'speed.txt'
    if not path.is_file():
        args.out.mkdir(parents=True, exist_ok=True)
        options = ['--device', args.device, '--precision', args.precision]
        options += [] if args.workers is None else ['--workers', str(args.workers)]
        command = [sys.executable, '-m', 'studies.training_speed', *options]
        found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        path.write_text(found, encoding='utf-8')
    return path.read_text(encoding='utf-8')


def main(argv: list[str] | None = None) -> int:
    """Measure, train, print; the same command goes on after an interruption."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--family', type=Path, default=FAMILY, help='(%(default)s)')
    parser.add_argument(
        '--data',
        type=Path,
        default=cache_folder(),
        metavar='DIR',
        help='folder of the data sets that the experiments name (%(default)s)',
    )
    add_compute(parser)
    parser.add_argument('--out', type=Path, default=Path('to_the_end'), help='(%(default)s)')
    parser.add_argument(
        '--epochs', type=positive, default=20, metavar='X', help='of the shortest (%(default)s)'
    )
    parser.add_argument(
        '--most-epochs', type=positive, default=640, metavar='X', help='(%(default)s)'
    )
    parser.add_argument(
        '--gain', type=positive, default=0.3, metavar='X', help='AP50, points (%(default)s)'
    )
    parser.add_argument('--no-speed', action='store_true', help='train only')
    parser.add_argument('--quiet', action='store_true', help='no progress bars')
    args = parser.parse_args(argv)
    use_one_thread()
    if not args.no_speed:
        print(measure_speed(args))
    try:
        with computing(args) as compute:
            text = Family(args, compute).table().to_text()
    except Interrupted as stop:
        print(f'interrupted {stop}; run the same command again to go on')
        return INTERRUPTED
    (args.out / 'table.txt').write_text(text + '\n', encoding='utf-8')
    print(text)
    return 0


if __name__ == '__main__':
    sys.exit(main())
