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

"""`pruned-perception evaluate`: COCO accuracy of the exported model on a data set."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pruned_perception._tables import Table
from pruned_perception.cli import evaluate_corruptions
from pruned_perception.cli.arguments import add_execution_provider, at_least
from pruned_perception.cli.output import say
from pruned_perception.errors import UserError

if TYPE_CHECKING:
    from pruned_perception.datasets import Dataset
    from pruned_perception.inference.coco_metrics import Metrics
    from pruned_perception.inference.detections import Detections
    from pruned_perception.inference.slices import ByGroup, Slices


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `evaluate`."""
    parser.add_argument(
        'dataset',
        type=Path,
        help='data set or a split of one: FOLDER or FOLDER/SPLIT (COCO, YOLO, Pascal VOC)',
    )
    parser.add_argument('--model', required=True, metavar='BUNDLE', help='bundle or family')
    parser.add_argument('--member', help='one member of a family (default: all)')
    add_execution_provider(parser)
    parser.add_argument(
        '--threads', type=at_least(1), default=1, help='threads (default: %(default)s)'
    )
    parser.add_argument(
        '--resamples',
        type=at_least(0),
        default=1000,
        help='of the bootstrap; 0: none (%(default)s)',
    )
    parser.add_argument('--json', action='store_true', help='one JSON object a line and bundle')
    parser.add_argument(
        '--record', action='store_true', help="write the result into the bundles' manifests"
    )
    parser.add_argument('--data-name', help='what to call the data set (default: its folder)')
    where = parser.add_argument_group('where it fails')
    where.add_argument(
        '--by',
        nargs='+',
        metavar='AXIS',
        help='tables of what is found and what is right by height (of the box), radius (its '
        'place), light (of the frame) or group (venue, drive, layout; with AP50); NAME=0,8,16 '
        "gives the bins' lower edges",
    )
    where.add_argument(
        '--classes', nargs='+', metavar='NAME', help='of the tables by height, radius, light: '
        'these alone (default: all)',
    )  # fmt: skip
    evaluate_corruptions.add_arguments(parser)


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what shows before anything is run."""
    from pruned_perception.inference.slices import axes_from

    if args.by is not None:
        axes_from(args.by)
        if args.corruptions is not None:
            raise UserError('--by is of clean frames: give --corruptions in another command')
    elif args.classes is not None:
        raise UserError('--classes goes with --by')


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
    from pruned_perception.inference.accuracy import (
        MEMBER,
        detect_all,
        evaluation_record,
        score,
    )
    from pruned_perception.inference.coco_metrics import gain
    from pruned_perception.inference.detector import Detector
    from pruned_perception.inference.errors import DeviationError
    from pruned_perception.inference.slices import axes_from, check_slices

    path = resolve_model(args.model)
    if is_family(path):
        family = load_family(path)
        bundles = family.members if args.member is None else (family.member(args.member),)
    else:
        bundles = (load_bundle(path),)
    name = args.data_name or args.dataset.resolve().name
    notes = read_dataset(args.dataset).with_labels(bundles[0].labels, bundles[0].name)
    notes.check_labelled()
    if args.by is not None:
        check_slices(notes, axes_from(args.by), args.classes)
    measured: dict[str, Metrics] = {}
    found: dict[str, list[Detections]] = {}
    for bundle in bundles:
        try:
            detector = Detector(
                bundle, threads=args.threads, execution_provider=args.execution_provider
            )
        except DeviationError as error:  # for other processors
            if len(bundles) == 1:
                raise
            say(f'{bundle.name}: left out: {error}', file=sys.stderr)
            continue
        with Progress(f'evaluating {bundle.name}') as bar:
            found[bundle.name] = detect_all(detector, notes, progress=bar.counted)
        metrics = score(
            notes,
            found[bundle.name],
            score_threshold=bundle.thresholds.score,
            resamples=args.resamples,
        )
        frames = fingerprints(notes) if args.record else None
        execution = detector.execution
        entry = {
            'net': MEMBER,
            **evaluation_record(metrics, name, notes.digest, frames),
            **execution.to_dict(),
        }
        if args.record:
            record_evidence(bundle, 'evaluation', entry, keys=('net', 'data'))
        measured[bundle.name] = metrics
        against = gain(metrics, measured[bundles[0].name])
        if args.json:
            said = {'bundle': bundle.name, 'sha256': bundle.sha256, **entry}
            if against is not None and len(measured) > 1:
                said['against'] = {'bundle': bundles[0].name, **asdict(against)}
            print(json.dumps(said))
        else:
            say(
                f'{bundle.name} ({bundle.cost.macs / 1e6:.0f} MMAC) on {name}, '
                f'{execution.warning or execution.to_text()}:'
            )
            say(metrics.to_text())
    if len(measured) > 1 and not args.json:
        say(_against(measured))
    if args.by is not None:
        _by(args, notes, found, bundles[0].thresholds.score)
    return 0


def _by(
    args: argparse.Namespace,
    notes: Dataset,
    found: Mapping[str, Sequence[Detections]],
    threshold: float,
) -> None:
    """Print where the networks fail."""
    from pruned_perception.inference.slices import axes_from, brightness, by_group, slices

    axes = axes_from(args.by)
    light = brightness(notes) if 'light' in axes else None
    for axis, bins in axes.items():
        parts: list[Slices | ByGroup] = [
            slices(
                notes,
                found,
                axis,
                bins=bins,
                light=light,
                score_threshold=threshold,
                classes=args.classes,
                resamples=args.resamples,
            )
        ]
        if bins is None:
            parts.append(by_group(notes, found))
        for each in parts:
            say(json.dumps({'by': axis, **each.to_dict()}) if args.json else f'\n{each.to_text()}')


def _against(measured: Mapping[str, Metrics]) -> str:
    """Return the members' AP50, and what each gains over the first one, frame by frame."""
    from pruned_perception.inference.coco_metrics import gain

    (first, dense), *others = measured.items()
    rows: list[tuple[str, float, str]] = [(first, dense.ap50, '–')]
    for name, metrics in others:
        difference = gain(metrics, dense)
        point = f'{metrics.ap50 - dense.ap50:+.4f}'
        rows.append((name, metrics.ap50, difference.to_text() if difference else point))
    columns = [('member', ''), ('AP50', '.3f'), (f'against {first} [95 %]', '')]
    return (
        f'{Table(columns, rows).to_markdown()}\n'
        f'paired: the same {dense.images} frames, in {dense.groups} groups; intervals of a '
        'bootstrap with the same resamples for both, each interval for itself; resampled: '
        f'{dense.resampled}'
    )
