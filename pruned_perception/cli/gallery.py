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

"""`pruned-perception gallery`: parent and members side by side on frames, failures first."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pruned_perception.cli.arguments import at_least
from pruned_perception.cli.output import check_output, say
from pruned_perception.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pruned_perception.bundle import Bundle
    from pruned_perception.inference.coco_metrics import Boxes
    from pruned_perception.inference.detections import Detections
    from pruned_perception.report.gallery import Row

MOST = 2000
"""Frames without labels that are looked through."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gallery`."""
    parser.add_argument(
        'source',
        type=Path,
        help='annotated data set or a split of one; with --unlabelled images, a video or a bag',
    )
    parser.add_argument(
        '--model',
        nargs='+',
        required=True,
        metavar='BUNDLE',
        help='a family, or bundles of the same labels, the parent first',
    )
    parser.add_argument('--members', nargs='+', metavar='NAME', help='of the family (default: all)')
    parser.add_argument('--names', nargs='+', metavar='NAME', help="instead of the bundles' own")
    parser.add_argument(
        '--unlabelled',
        action='store_true',
        help='without labels: what the parent shows is the yardstick',
    )
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='these alone (default: all)')
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FILE', help='page (.html) or picture (.jpg)'
    )
    parser.add_argument('--frames', type=at_least(1), default=6, help='rows (default: %(default)s)')
    parser.add_argument('--width', type=at_least(40), help='of a frame, pixels (default: 480)')
    parser.add_argument('--threads', type=at_least(1), default=1, help='(default: %(default)s)')


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what shows before anything is run."""
    from pruned_perception.report.gallery import PAGES, PICTURES

    check_output(args.out)
    if args.out.suffix.lower() not in (*PAGES, *PICTURES):
        raise UserError(
            f'--out {args.out}: a page ends in .html, a picture in {", ".join(PICTURES)}'
        )


def run(args: argparse.Namespace) -> int:
    """Run all networks over the frames and write those where they fail most."""
    from pruned_perception.report.gallery import write

    bundles = _bundles(args)
    rows = _unlabelled(args, bundles) if args.unlabelled else _labelled(args, bundles)
    if not rows and args.out.suffix.lower() != '.html':
        raise UserError(f'{args.source}: no object in these frames, and nothing is detected')
    what = (
        f'what {bundles[0].name} shows and the others do not is dashed, what it does not show and '
        'they do has a second frame'
        if args.unlabelled
        else 'what is missed is dashed, what is of no object has a second frame'
    )
    write(
        rows,
        args.out,
        title=f'{", ".join(each.name for each in bundles)} on {args.source.resolve().name}',
        lead=f'Most failures first, at score ≥ {bundles[0].thresholds.score:g}, IoU ≥ .5: {what}. '
        'The last frame is one without any, if there is one.',
    )
    for row in rows:
        say(row.title)
        for view in row.views:
            say(f'  {view.name}: {view.failures}')
    say(f'{args.out}: {len(rows)} frames')
    return 0


def _bundles(args: argparse.Namespace) -> tuple[Bundle, ...]:
    from pruned_perception.bundle import is_family, load_bundle, load_family, resolve_model

    paths = [resolve_model(each) for each in args.model]
    if len(paths) == 1 and is_family(paths[0]):
        family = load_family(paths[0])
        return (
            family.in_float
            if args.members is None
            else tuple(family.member(name) for name in args.members)
        )
    if args.members is not None:
        raise UserError('--members: is for one family; here bundles are given by themselves')
    bundles = tuple(load_bundle(path) for path in paths)
    if args.names is not None:
        if len(args.names) != len(bundles):
            raise UserError(f'--names: {len(args.names)} for {len(bundles)} bundles')
        bundles = tuple(map(_named, bundles, args.names))
    for each in bundles[1:]:
        if each.labels != bundles[0].labels:
            raise UserError(f'{each.manifest_path}: its labels are not those of {bundles[0].name}')
    names = [each.name for each in bundles]
    if len(set(names)) < len(names):
        raise UserError(f'--model: bundles of the same name ({", ".join(names)}): give --names')
    return bundles


def _named(bundle: Bundle, name: str) -> Bundle:
    return replace(bundle, name=name)


class _Frame(NamedTuple):
    title: str
    group: str
    image: NDArray[np.uint8]


def _labelled(args: argparse.Namespace, bundles: tuple[Bundle, ...]) -> list[Row]:
    from pruned_perception.datasets import read_dataset
    from pruned_perception.inference.coco_metrics import Boxes

    parent = bundles[0]
    notes = read_dataset(args.source).with_labels(parent.labels, parent.name)
    notes.check_labelled()
    unit = notes.unit or 'group'
    frames = (
        _Frame(f'{path.name}, {unit} {group}', group, image)
        for path, group, image in zip(notes.paths, notes.groups, notes.images(), strict=True)
    )
    truth = [Boxes(*each) for each in zip(notes.boxes, notes.class_ids, notes.crowd, strict=True)]
    return _rows(args, bundles, frames, notes.image, truth)


def _unlabelled(args: argparse.Namespace, bundles: tuple[Bundle, ...]) -> list[Row]:
    if len(bundles) < 2:
        raise UserError('--unlabelled compares with the parent: give a member of it, too')

    def image(index: int) -> NDArray[np.uint8]:
        return next(itertools.islice(_frames(args.source), index, None)).image

    frames = itertools.islice(_frames(args.source), MOST)
    return _rows(args, bundles, frames, image, None)


def _frames(source: Path) -> Iterator[_Frame]:
    """Yield what can be read, in bgr."""
    import cv2
    import numpy as np

    from pruned_perception.inference.sources import Frame, open_source

    for each in open_source(source).frames:
        if isinstance(each, Frame):
            image = each.image
            if each.order == 'gray':
                image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
            elif each.order == 'rgb':
                image = image[..., ::-1]
            yield _Frame(f'{Path(each.source).name} #{each.index}', each.source, image)


def _rows(
    args: argparse.Namespace,
    bundles: tuple[Bundle, ...],
    frames: Iterable[_Frame],
    image: Callable[[int], NDArray[np.uint8]],
    truth: Sequence[Boxes] | None,
) -> list[Row]:
    """Run the networks and choose; frames without labels are all of one group."""
    from pruned_perception.cli.progress import Progress
    from pruned_perception.inference.detector import Detector
    from pruned_perception.report.gallery import WIDTH, gallery

    detectors = {each.name: Detector(each, threads=args.threads) for each in bundles}
    found: dict[str, list[Detections]] = {name: [] for name in detectors}
    titles, groups = [], []
    with Progress('looking') as bar:
        for number, frame in enumerate(frames, 1):
            titles.append(frame.title)
            groups.append(frame.group if truth is not None else '')
            for name, detector in detectors.items():
                found[name].append(detector.detect(frame.image, 'bgr')[0])
            bar.share(number / (MOST if truth is None else len(truth)))
    return gallery(
        titles,
        image,
        found,
        bundles[0].labels,
        truth=truth,
        groups=groups,
        score_threshold=bundles[0].thresholds.score,
        count=args.frames,
        classes=args.classes,
        width=args.width or WIDTH,
    )
