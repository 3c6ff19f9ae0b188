"""`pruned-perception certify`: how often a pruned network decides otherwise than its parent."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pruned_perception.cli.arguments import at_least, fraction
from pruned_perception.cli.pruning_inputs import check_output, emit

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
        help='frames that served neither training nor calibration nor a choice',
    )
    ours.add_argument(
        '--score-threshold', type=fraction, metavar='X', help="of both; the manifests' by default"
    )
    ours.add_argument(
        '--dead-band',
        type=fraction,
        default=0.1,
        metavar='X',
        help='about that threshold, within which detections may come and go (%(default)s)',
    )
    ours.add_argument(
        '--record', action='store_true', help="write the certificate into the child's manifest"
    )
    ours.add_argument('--threads', type=at_least(1), default=1, help='(default: %(default)s)')
    own = parser.add_argument_group('your own network, whose task has a `holdout`')
    own.add_argument('--task', metavar='PACKAGE.MODULE:FUNCTION', help='see `prune`')
    own.add_argument('--weights', type=Path, metavar='FILE', help='state dict of the parent')
    own.add_argument('--pruned', type=Path, metavar='FILE', help='what `prune` or `finetune` wrote')
    parser.add_argument(
        '--confidence', type=fraction, default=0.95, metavar='X', help='(default: %(default)s)'
    )
    parser.add_argument(
        '--unit', help='what frames that belong together have in common (layout; drive of a task)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the bootstrap (%(default)s)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='JSON file for the certificate')
    parser.add_argument('--json', action='store_true', help='print the certificate as JSON')


def run(args: argparse.Namespace) -> int:
    """Compare, certify, write."""
    from pruned_perception._io import write_json
    from pruned_perception.pruning import PruningError

    check_output(args.out)
    of_bundles = [args.parent, args.child, args.holdout]
    if args.task is None and None not in of_bundles:
        certificate = _of_bundles(args)
    elif args.task is not None and args.pruned is not None and not any(of_bundles):
        if args.record:
            raise PruningError('--record writes into a bundle; keep this certificate with --out')
        certificate = _of_task(args)
    else:
        raise PruningError(
            'give --parent, --child and --holdout for bundles, or --task and --pruned for a '
            'network of your own'
        )
    if args.out is not None:
        write_json(args.out, certificate.to_dict())
    emit(args.json, certificate.to_dict(), certificate.to_text())
    return 0


def _of_bundles(args: argparse.Namespace) -> Certificate:
    from pruned_perception.bundle import load_bundle, load_member, resolve_model
    from pruned_perception.cli.progress import Progress
    from pruned_perception.training.detector.certification import (
        UNIT,
        certify_bundles,
        record_certificate,
    )

    child = load_bundle(resolve_model(args.child))
    with Progress(f'certifying {child.name}') as bar:
        certificate = certify_bundles(
            load_member(resolve_model(args.parent)),
            child,
            args.holdout,
            score_threshold=args.score_threshold,
            dead_band=args.dead_band,
            confidence=args.confidence,
            unit=args.unit or UNIT,
            seed=args.seed,
            threads=args.threads,
            progress=lambda done, total: bar.share(done / total),
        )
    if args.record:
        record_certificate(child, certificate)
    return certificate


def _of_task(args: argparse.Namespace) -> Certificate:
    from pruned_perception.cli.progress import Progress
    from pruned_perception.cli.pruning_inputs import Watched
    from pruned_perception.pruning import PruningError
    from pruned_perception.pruning.certificate import argmax_decisions, certify
    from pruned_perception.training.pipeline import load_pruned, read_plans
    from pruned_perception.training.task import load_task

    task = load_task(args.task, weights=args.weights)
    if task.holdout is None:
        raise PruningError(f'task {args.task!r}: to certify, it needs a `holdout`')
    with Progress('certifying') as bar:
        return certify(
            task.model,
            load_pruned(task, args.pruned),
            Watched(task.holdout, bar),
            decide=task.decide or argmax_decisions,
            clusters=task.clusters,
            unit=args.unit or 'drive',
            slices=task.slices,
            confidence=args.confidence,
            record={'plans': [each.to_dict() for each in read_plans(args.pruned)]},
            seed=args.seed,
        )
