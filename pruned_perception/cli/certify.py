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

"""`pruned-perception certify`: how often a pruned network decides otherwise than its parent."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruned_perception.cli.arguments import add_device, at_least, compute_on, fraction
from pruned_perception.cli.output import check_output
from pruned_perception.cli.pruning_inputs import emit
from pruned_perception.errors import UserError

if TYPE_CHECKING:
    from pruned_perception.pruning.certificate import Certificate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `certify`."""
    ours = parser.add_argument_group('two bundles: the models as they run on the robot')
    ours.add_argument('--parent', metavar='BUNDLE', help='the dense one, or its family')
    ours.add_argument('--child', metavar='BUNDLE', help='the one pruned from it')
    ours.add_argument(
        '--holdout',
        type=Path,
        metavar='DATASET',
        help='drives on which nothing was fitted, chosen or stopped',
    )
    ours.add_argument(
        '--score-threshold', type=fraction, metavar='X', help="of both; the manifests' by default"
    )
    ours.add_argument(
        '--dead-band',
        type=fraction,
        default=0.1,
        metavar='X',
        help='of the lines about frames: about that threshold, where detections may come and go '
        '(%(default)s); objects are counted without it',
    )
    ours.add_argument(
        '--record', action='store_true', help="write the certificate into the child's manifest"
    )
    ours.add_argument(
        '--add',
        nargs='?',
        const='',
        metavar='FILE',
        help='add these drives to the certificate in FILE, or in the manifest; needs no correction',
    )
    ours.add_argument('--threads', type=at_least(1), default=1, help='(default: %(default)s)')
    own = parser.add_argument_group('your own network, whose task has a `holdout`')
    own.add_argument('--task', metavar='PACKAGE.MODULE:FUNCTION', help='see `prune`')
    own.add_argument('--weights', type=Path, metavar='FILE', help='state dict of the parent')
    own.add_argument('--pruned', type=Path, metavar='FILE', help='what `prune` or `finetune` wrote')
    add_device(own)
    parser.add_argument(
        '--confidence', type=fraction, default=0.95, metavar='X', help='(default: %(default)s)'
    )
    parser.add_argument(
        '--longest',
        nargs='+',
        metavar='N',
        help='the longest drive that the certificate shall speak of, declared before looking: its '
        'frames, its objects (of bundles); as NAME=N those of a slice, or its detections',
    )
    parser.add_argument(
        '--unit', help='what frames that belong together have in common (layout; drive of a task)'
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='JSON file for the certificate')
    parser.add_argument('--json', action='store_true', help='print the certificate as JSON')


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what shows without PyTorch."""
    from pruned_perception.bundle import load_bundle, load_member, resolve_model

    check_output(args.out)
    _longest(args.longest)
    of_bundles = [args.parent, args.child, args.holdout]
    if args.task is None and args.device != 'cpu':
        raise UserError('--device: is for --task; bundles run in ONNX Runtime, on the CPU')
    if args.task is None and None not in of_bundles:
        load_member(resolve_model(args.parent))
        load_bundle(resolve_model(args.child))
    elif args.task is None or args.pruned is None or any(of_bundles):
        raise UserError(
            'give --parent, --child and --holdout for bundles, or --task and --pruned for a '
            'network of your own'
        )
    elif args.record:
        raise UserError('--record writes into a bundle; keep this certificate with --out')


def run(args: argparse.Namespace) -> int:
    """Compare, certify, write."""
    from pruned_perception._io import write_json

    certificate = _of_bundles(args) if args.task is None else _of_task(args)
    if args.out is not None:
        write_json(args.out, certificate.to_dict())
    emit(args.json, certificate.to_dict(), certificate.to_text())
    return 0


def _longest(words: list[str] | None) -> dict[str, int]:
    """Return what `--longest` declares."""
    declared: dict[str, int] = {}
    names = iter(('frames', 'objects'))
    for word in words or ():
        name, equals, number = word.rpartition('=')
        key = name if equals else next(names, '')
        if not key or not number.isdigit() or int(number) < 1:
            raise UserError(
                f'--longest {word}: give frames and objects of the longest drive, and NAME=N for a '
                'slice, for example --longest 600 2000 person=400'
            )
        declared[key] = int(number)
    return declared


def _of_bundles(args: argparse.Namespace) -> Certificate:
    from pruned_perception.bundle import load_bundle, load_member, record_evidence, resolve_model
    from pruned_perception.cli.progress import Progress
    from pruned_perception.training.detector.certification import certify_bundles

    child = load_bundle(resolve_model(args.child))
    former = None if args.add is None else _former(args.add, child.manifest['certificate'])
    with Progress(f'certifying {child.name}') as bar:
        certificate = certify_bundles(
            load_member(resolve_model(args.parent)),
            child,
            args.holdout,
            longest=_longest(args.longest),
            score_threshold=args.score_threshold,
            dead_band=args.dead_band,
            confidence=args.confidence,
            unit=args.unit,
            threads=args.threads,
            progress=lambda done, total: bar.share(done / total),
        )
    if former is not None:
        certificate = former.extended(certificate)
    if args.record:
        record_evidence(child, 'certificate', certificate.to_dict())
    return certificate


def _former(file: str, recorded: Any) -> Certificate:
    """Return the certificate that drives are added to."""
    from pruned_perception.cli.pruning_inputs import read_json
    from pruned_perception.pruning import PruningError
    from pruned_perception.pruning.certificate import Certificate, read_certificate

    if not file and recorded is None:
        raise PruningError('--add: the manifest has no certificate yet; certify without --add')
    found = read_json(Path(file), read_certificate) if file else read_certificate(recorded)
    if not isinstance(found, Certificate):
        raise PruningError(
            '--add: the former certificate is of frames, of an earlier kind, and keeps no drives; '
            'certify all drives anew'
        )
    return found


def _of_task(args: argparse.Namespace) -> Certificate:
    from pruned_perception.cli.progress import Progress
    from pruned_perception.cli.pruning_inputs import Watched
    from pruned_perception.pruning import PruningError
    from pruned_perception.pruning.certificate import argmax_decisions, certify
    from pruned_perception.training.pipeline import load_pruned, read_plans
    from pruned_perception.training.task import load_task

    compute = compute_on(args.device)
    task = load_task(args.task, weights=args.weights)
    if task.holdout is None:
        raise PruningError(f'task {args.task!r}: to certify, it needs a `holdout`')
    if args.add is not None:
        raise PruningError('--add is for bundles; in Python: Certificate.extended')
    with Progress('certifying') as bar:
        return certify(
            compute.placed(task.model),
            compute.placed(load_pruned(task, args.pruned)),
            Watched(task.holdout, bar),
            used={'the calibration set': task.calibration, **(task.used or {})},
            decide=task.decide or argmax_decisions,
            clusters=task.clusters,
            longest=_longest(args.longest),
            terms=task.terms,
            unit=args.unit or 'drive',
            slices=task.slices,
            confidence=args.confidence,
            record={'plans': [each.to_dict() for each in read_plans(args.pruned)]},
        )
