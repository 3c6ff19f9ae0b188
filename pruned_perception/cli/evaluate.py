"""`pruned-perception evaluate`: COCO accuracy of the exported model on a data set."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pruned_perception.cli import evaluate_corruptions
from pruned_perception.cli.output import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `evaluate`."""
    parser.add_argument(
        'dataset', type=Path, help='data set or a split of one: FOLDER or FOLDER/SPLIT (COCO)'
    )
    parser.add_argument('--model', required=True, metavar='BUNDLE', help='bundle or family')
    parser.add_argument('--member', help='one member of a family (default: all)')
    parser.add_argument('--threads', type=int, default=1, help='threads (default: %(default)s)')
    parser.add_argument(
        '--resamples', type=int, default=1000, help='of the bootstrap; 0: none (%(default)s)'
    )
    parser.add_argument('--json', action='store_true', help='one JSON object a line and bundle')
    parser.add_argument(
        '--record', action='store_true', help="write the result into the bundles' manifests"
    )
    parser.add_argument('--data-name', help='what to call the data set (default: its folder)')
    evaluate_corruptions.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate a bundle, or every member of a family; under corruption where that is asked for."""
    if evaluate_corruptions.asked_for(args):
        return evaluate_corruptions.run(args)
    from pruned_perception.bundle import (
        is_family,
        load_bundle,
        load_family,
        record_evidence,
        resolve_model,
    )
    from pruned_perception.cli.progress import Progress
    from pruned_perception.datasets import read_dataset
    from pruned_perception.datasets.fingerprints import fingerprints
    from pruned_perception.training.detector.accuracy import MEMBER, evaluate, evaluation_record

    path = resolve_model(args.model)
    if is_family(path):
        family = load_family(path)
        bundles = family.members if args.member is None else (family.member(args.member),)
    else:
        bundles = (load_bundle(path),)
    name = args.data_name or args.dataset.resolve().name
    for bundle in bundles:
        with Progress(f'evaluating {bundle.name}') as bar:
            metrics, digest = evaluate(
                bundle,
                args.dataset,
                resamples=args.resamples,
                threads=args.threads,
                progress=lambda done, total, bar=bar: bar.share(  # type: ignore[misc]
                    done / total
                ),
            )
        frames = fingerprints(read_dataset(args.dataset)) if args.record else None
        entry = {'net': MEMBER, **evaluation_record(metrics, name, digest, frames)}
        if args.record:
            record_evidence(bundle, 'evaluation', entry, keys=('net', 'data'))
        if args.json:
            print(json.dumps({'bundle': bundle.name, 'sha256': bundle.sha256, **entry}))
        else:
            say(f'{bundle.name} ({bundle.cost.macs / 1e6:.0f} MMAC) on {name}:')
            say(metrics.to_text())
    return 0
