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

"""`pruned-perception evaluate --corruptions`: members of a family beyond clean frames."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pruned_perception.cli.arguments import at_least, fraction
from pruned_perception.errors import UserError

if TYPE_CHECKING:
    from pruned_perception.bundle import Bundle

RESULT = 'robustness.json'
_OF_CORRUPTIONS = ('severities', 'images', 'margin', 'confidence', 'seed', 'out')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `evaluate` that speak of corruption."""
    group = parser.add_argument_group(
        'under corruption', 'what pruned members lose more than the dense one, and how surely'
    )
    group.add_argument(
        '--corruptions',
        nargs='*',
        metavar='NAME',
        help='noise, blur, motion, dark, glare, jpeg, fog (all, where none is named)',
    )
    group.add_argument(
        '--severities', nargs='+', type=at_least(1, 5), metavar='N', help='of 1 … 5 (default: all)'
    )
    group.add_argument(
        '--images',
        type=at_least(1),
        metavar='N',
        help='so many frames, spread over layouts (default: all)',
    )
    group.add_argument(
        '--margin',
        type=fraction,
        metavar='X',
        help='share of the objects that a member may miss more than the dense one (0.1)',
    )
    group.add_argument(
        '--confidence', type=fraction, metavar='X', help='that all certified is true (0.95)'
    )
    group.add_argument('--seed', type=at_least(0), help='of the corruptions (0)')
    group.add_argument(
        '--out',
        type=Path,
        metavar='FOLDER',
        help='for page, pictures and JSON; an interrupted measurement in it goes on',
    )


def asked_for(args: argparse.Namespace) -> bool:
    """Say whether to corrupt; raise UserError where options are of that, and it is not asked."""
    if args.corruptions is not None:
        return True
    for name in _OF_CORRUPTIONS:
        if getattr(args, name) is not None:
            raise UserError(f'--{name} goes with --corruptions')
    return False


def run(args: argparse.Namespace) -> int:
    """Measure, write JSON, page and pictures, print the tables."""
    from pruned_perception._io import write_json
    from pruned_perception.bundle import record_evidence
    from pruned_perception.cli.progress import Progress
    from pruned_perception.datasets import read_dataset
    from pruned_perception.datasets.corruptions import CORRUPTIONS, SEVERITIES
    from pruned_perception.datasets.fingerprints import SEEN, fingerprints
    from pruned_perception.report import robustness as report
    from pruned_perception.training.detector.robustness import MARGIN, measure

    if args.out is None:
        raise UserError(
            '--corruptions writes a page with pictures, and results to go on from: say where '
            '(--out FOLDER)'
        )
    members = _members(args)
    seed = args.seed or 0
    with Progress('evaluating under corruption') as bar:
        found = measure(
            members,
            args.dataset,
            args.out,
            names=args.corruptions or tuple(CORRUPTIONS),
            severities=args.severities or SEVERITIES,
            images=args.images,
            margin=MARGIN if args.margin is None else args.margin,
            confidence=0.95 if args.confidence is None else args.confidence,
            seed=seed,
            threads=args.threads,
            progress=lambda what, done, total, left: bar.phase(
                what, done / total, f'{100 * done / total:.0f} %{_left(left)}'
            ),
        )
    name = args.data_name or args.dataset.resolve().name
    entries = {each.name: {**found.entry(each.name, name)} for each in members}
    write_json(args.out / RESULT, {'data': name, **found.to_dict()})
    notes = read_dataset(args.dataset).with_labels(members[0].labels, members[0].name)
    title = f'{members[0].path.resolve().parent.name} under corruption, on {name}'
    with Progress('drawing') as bar:
        page = report.write_page(
            found,
            notes,
            args.out,
            seed=seed,
            title=title,
            progress=lambda done, total: bar.share(done / total),
        )
    if args.record:
        frames = {SEEN: fingerprints(notes).to_dict()}  # which may certify no more
        for each in members:
            entry = entries[each.name] | frames
            record_evidence(each, 'evaluation', entry, keys=('net', 'data'))
    if args.json:
        print(json.dumps({'data': name, **found.to_dict()}))
    else:
        print(report.to_text(found))
        print(f'\nPictures and tables: {page}')
    return 0


def _members(args: argparse.Namespace) -> tuple[Bundle, ...]:
    """Return the members to compare, the dense one first."""
    from pruned_perception.bundle import is_family, load_family, resolve_model

    path = resolve_model(args.model)
    if not is_family(path):
        raise UserError(
            f'{path}: --corruptions compares members with the dense one: give the family, the '
            'folder that holds them'
        )
    family = load_family(path)
    if args.member is None:
        return family.in_float
    chosen, dense = family.member(args.member), family.member()
    if chosen.name == dense.name:
        raise UserError(f'--member {args.member}: the dense one is what others are compared with')
    return dense, chosen


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ''
    minutes = seconds / 60
    return f', {seconds:.0f} s left' if minutes < 2 else f', {minutes:.0f} min left'
