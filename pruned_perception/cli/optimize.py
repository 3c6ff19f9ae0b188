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

"""`pruned-perception optimize`: your detector in, a family of faster ones out; no labels needed."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruned_perception.cli.arguments import add_device, at_least, compute_on, fraction, positive
from pruned_perception.cli.describing import add_description, described, is_described
from pruned_perception.cli.output import say

if TYPE_CHECKING:
    from pruned_perception.optimize import Settings

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'detector',
        help='a bundle, or a family (its dense member; FAMILY/MEMBER); an ONNX file; or '
        'package.module:function that returns a PyTorch module',
    )
    parser.add_argument(
        '--images',
        nargs='+',
        required=True,
        metavar='SOURCE',
        help='what the robot saw, without labels: folders of images (each sub-folder is a drive), '
        'videos, bags, or a topic to listen to; five drives or more make a certificate',
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FAMILY', help='folder of the family to make'
    )
    budget = parser.add_argument_group('how small, or how fast; each value makes a member')
    budget.add_argument(
        '--macs', nargs='+', type=float, default=[], metavar='X', help='share of the MACs, 0 … 1'
    )
    budget.add_argument(
        '--speedup', nargs='+', type=float, default=[], metavar='X', help='X times faster, here'
    )
    budget.add_argument(
        '--budget-ms', nargs='+', type=float, default=[], metavar='X',
        help="milliseconds of one run, one thread, on this machine or by another's --table",
    )  # fmt: skip
    budget.add_argument(
        '--table', type=Path, metavar='FILE',
        help='for --budget-ms and --speedup: what `profile` wrote on the robot, of this detector',
    )  # fmt: skip
    how = parser.add_argument_group('how')
    how.add_argument(
        '--recipe',
        choices=('quick', 'standard', 'thorough', 'compact'),
        default='standard',
        help='(default: %(default)s)',
    )
    how.add_argument(
        '--ranks',
        action='store_true',
        help='make two layers of one, too, where that costs less (recipes of one cut)',
    )
    how.add_argument(
        '--minutes',
        type=float,
        metavar='N',
        help='of teaching each member (default: 3, 25, 90 or 90, by recipe); counted in steps: '
        'the same command ends with the same weights',
    )
    how.add_argument(
        '--training',
        metavar='package.module:function',
        help="your own training in place of the parent's teaching: given the network that was cut "
        'and fitted, it returns a Task with `training` and `step`',
    )
    how.add_argument(
        '--seed', type=at_least(0), default=0, help='of everything random (%(default)s)'
    )
    how.add_argument(
        '--skip',
        nargs='+',
        default=[],
        choices=('recovery', 'int8', 'certificate', 'report'),
        help='steps to leave out',
    )
    how.add_argument(
        '--frames', type=at_least(1), default=600, metavar='N', help='used at most (%(default)s)'
    )
    how.add_argument(
        '--round-to',
        type=at_least(1),
        metavar='N',
        help="kept channels are multiples of this (default: this processor's block)",
    )
    add_device(how)
    how.add_argument('--topic', help='image topic of a bag, where it has several')
    how.add_argument(
        '--record-seconds',
        type=positive,
        default=60.0,
        metavar='S',
        help='how long to listen to a topic (default: %(default)g)',
    )
    how.add_argument(
        '--force',
        action='store_true',
        help='go on though the parent sees next to nothing in the images, or pruning is not '
        'expected to pay',
    )
    how.add_argument(
        '--dry-run',
        action='store_true',
        help='only say what would be done and what is to be expected; the same command without it '
        'goes on from there',
    )
    judged = parser.add_argument_group('how it is judged')
    judged.add_argument(
        '--labels',
        type=Path,
        metavar='DATASET',
        help='annotated frames (COCO, YOLO, VOC): accuracy beside agreement; their groups are '
        'drives where its pictures are those of --images',
    )
    judged.add_argument(
        '--confidence', type=fraction, default=0.95, metavar='X', help='(default: %(default)s)'
    )
    judged.add_argument(
        '--at-most',
        type=fraction,
        metavar='X',
        help='certify that at most this share of detections is lost: refused before the work '
        'where there are too few drives for that',
    )
    judged.add_argument(
        '--longest',
        nargs=2,
        type=at_least(1),
        metavar=('FRAMES', 'DETECTIONS'),
        help='of the longest drive that the certificate speaks of (default: twice the longest of '
        'those fitted to)',
    )
    own = parser.add_argument_group('a detector that is no bundle')
    own.add_argument(
        '--names', type=Path, metavar='FILE', help='text file with a label a line, in order of id'
    )
    own.add_argument('--weights', type=Path, metavar='FILE', help='state dict of a PyTorch module')
    add_description(own)
    parser.add_argument('--json', action='store_true', help='print what came of it as JSON')


def run(args: argparse.Namespace) -> int:
    """Optimise; 130 after an interruption, when the same command goes on."""
    from pruned_perception.cli.progress import Progress
    from pruned_perception.optimize.page import run_command
    from pruned_perception.optimize.run import optimize
    from pruned_perception.training.compute import fastest

    compute = fastest(compute_on(args.device).device)
    settings = _settings(args)
    lines = sys.stderr if args.json else sys.stdout
    with Progress('optimising') as bar:
        try:
            outcome = optimize(
                settings,
                say=lambda text: say(text, file=lines),
                report=bar.phase,
                dry_run=args.dry_run,
                compute=compute,
            )
        except KeyboardInterrupt:
            print('interrupted; the same command goes on from here', file=sys.stderr, flush=True)
            return INTERRUPTED
    if outcome is None:
        return 0
    if args.json:
        print(json.dumps(_plain(outcome.findings), ensure_ascii=False, allow_nan=False))
        return 0
    say(_table(outcome.findings))
    if outcome.report is not None:
        say(f'report: {outcome.report}')
    say(run_command(outcome.family, outcome.findings))
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    from pruned_perception.datasets import read_labels
    from pruned_perception.optimize.job import Settings
    from pruned_perception.optimize.probing import Target

    targets = [
        Target(unit, value)
        for unit, values in (('macs', args.macs), ('speedup', args.speedup), ('ms', args.budget_ms))
        for value in values
    ]
    return Settings(
        detector=args.detector,
        sources=tuple(_recorded(each, args) for each in args.images),
        family=args.out,
        targets=tuple(targets),
        recipe=args.recipe,
        minutes=args.minutes,
        seed=args.seed,
        topic=args.topic,
        frames=args.frames,
        round_to=args.round_to,
        ranks=args.ranks,
        table=args.table,
        names=None if args.names is None else tuple(read_labels(args.names)),
        weights=args.weights,
        described=described(args) if is_described(args) else {},
        labels=args.labels,
        training=args.training,
        skip=frozenset(args.skip),
        confidence=args.confidence,
        at_most=args.at_most,
        longest=None if args.longest is None else tuple(args.longest),
        force=args.force,
    )


def _recorded(source: str, args: argparse.Namespace) -> str:
    """Return the source; of a topic the bag that what comes on it was recorded in, once."""
    if not source.startswith('/') or Path(source).exists() or Path(source).suffix:
        return source
    from pruned_perception.benchmark.recorder import record
    from pruned_perception.benchmark.session import ros_session
    from pruned_perception.cli.progress import Progress
    from pruned_perception.errors import UserError

    bag = args.out.with_name(f'{args.out.name}-{source.strip("/").replace("/", "-")}')
    if (bag / 'metadata.yaml').is_file():
        return str(bag)
    with ros_session('optimize') as session, Progress(f'listening to {source}') as bar:
        received = record(
            session,
            bag,
            [source],
            duration=args.record_seconds,
            overwrite=True,
            on_progress=lambda recorder: bar.text(
                f'{sum(each.count for each in recorder.received.values())} images'
            ),
        )
    if not any(each.count for each in received.values()):
        shutil.rmtree(bag, ignore_errors=True)  # so that the same command listens again
        raise UserError(f'{source}: nothing came on this topic (and there is no such file)')
    return str(bag)


def _table(findings: dict[str, Any]) -> str:
    from pruned_perception._tables import Table

    header = (
        'member | MMAC:.0f | ms, one thread:.2f | × faster:.2f | agreement:.3f | not shown | added '
        '| AP50:.3f | certified, at most:.1%'
    )
    rows = [
        (
            row['name'],
            row['macs'] / 1e6,
            row['ms'],
            row['speedup'],
            row['agreement'],
            *('' if row[key] is None else '{:,} of {:,}'.format(*row[key])
              for key in ('lost', 'added')),
            row['ap50'],
            row['certified'],
        )
        for row in findings['members']
    ]  # fmt: skip
    return Table.under(header, rows).to_text()


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
