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

"""`pruned-perception data`: an annotated data set checked, converted or shown."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pruned_perception.cli.arguments import at_least
from pruned_perception.cli.output import check_output, say

if TYPE_CHECKING:
    from pruned_perception.datasets import Dataset
    from pruned_perception.datasets.inspection import Inspected

PROBLEMS = 1
"""Exit status where there are problems that nothing has mended."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `data`."""
    from pruned_perception.datasets.errors import REPAIRS
    from pruned_perception.datasets.formats import MODULES

    actions = parser.add_subparsers(dest='action', metavar='ACTION', required=True)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=text, description=text)
        added.add_argument('dataset', type=Path, help='its folder or file, or FOLDER/SPLIT')
        added.add_argument(
            '--format',
            choices=MODULES,
            help='of the data set (default: found by what lies there)',
        )
        return added

    check = action(
        'check',
        'List all that is wrong with a data set: every annotation, every picture, and the pictures '
        'that splits share. Exit status 1 if anything is.',
    )
    check.add_argument('--json', action='store_true', help='one JSON object')
    convert = action(
        'convert', 'Write a data set as COCO, the layout of our own, repaired or divided as asked.'
    )
    convert.add_argument('--out', type=Path, required=True, metavar='DIR', help='a new folder')
    repairs = '; '.join(f'{name} {text}' for name, text in REPAIRS.items())
    convert.add_argument(
        '--repair',
        action='append',
        default=[],
        choices=list(REPAIRS),
        metavar='REPAIR',
        help=f'what to mend, several times for several: {repairs}',
    )
    convert.add_argument(
        '--group-by',
        metavar='HOW',
        help='what frames that belong together share: `folder` (the first sub-folder), `picture` '
        '(each is its own), or a regular expression, of which the first group in the name of the '
        "picture is meant (default: the data set's own groups)",
    )
    convert.add_argument(
        '--unit',
        choices=('layout', 'venue', 'drive', 'group'),
        help='what a group is (default: group)',
    )
    convert.add_argument(
        '--split',
        nargs='+',
        type=_share,
        metavar='NAME=SHARE',
        help='divide all frames anew, for example train=0.8 test=0.2; groups stay whole',
    )
    convert.add_argument(
        '--seed', type=at_least(0), default=0, help='of the division (%(default)s)'
    )
    show = action('show', 'Write a page about a data set: numbers and annotated pictures.')
    show.add_argument('--out', type=Path, required=True, metavar='FILE', help='the page, as HTML')
    show.add_argument(
        '--pictures', type=at_least(1), default=12, metavar='N', help='of each split (%(default)s)'
    )


def run(args: argparse.Namespace) -> int:
    """Check, convert or show."""
    return {'check': _check, 'convert': _convert, 'show': _show}[args.action](args)


def _check(args: argparse.Namespace) -> int:
    from pruned_perception.datasets.statistics import labels_table, statistics
    from pruned_perception.report.dataset import problems_table

    found = _inspect(args)
    problems = [each for split in found for each in split.problems.found]
    if args.json:
        print(json.dumps(_facts(found), ensure_ascii=False))
        return PROBLEMS if problems else 0
    for each in found:
        name = each.split or args.dataset.resolve().name
        if each.notes is None:
            say(f'{name}: cannot be read')
            continue
        numbers = statistics(each.notes)
        groups = f', {len(numbers.groups)} groups ({each.notes.unit})' if numbers.groups else ''
        say(
            f'{name}: {numbers.frames} pictures, {numbers.empty} without a box; {numbers.boxes} '
            f'boxes, {numbers.crowd} crowds{groups}'
        )
        say(labels_table(numbers).to_text() + '\n')
    for note in (note for each in found for note in each.problems.notes):
        say(f'note: {note}')
    if not problems:
        say('no problems')
        return 0
    for problem in problems:
        say(problem.text)
    say('\n' + problems_table(problems).to_text())
    return PROBLEMS


def _convert(args: argparse.Namespace) -> int:
    from pruned_perception.datasets import DataError
    from pruned_perception.datasets.conversion import (
        divided,
        joined,
        with_groups,
        write_coco,
    )
    from pruned_perception.report.dataset import problems_table

    if args.unit is not None and args.group_by in (None, 'picture'):
        raise DataError('--unit says what the groups of --group-by are; give that, too')
    found = _inspect(args, args.repair)
    left = [each for split in found for each in split.problems.unmended]
    if left:
        for problem in left[:20]:
            say(problem.text)
        say('\n' + problems_table(left).to_text())
        raise DataError(
            f'{args.dataset}: {len(left)} problems, nothing is written; ask for repairs with '
            '--repair, or mend it by hand'
        )
    sets: list[Dataset] = [each.notes for each in found if each.notes is not None]
    if args.split:
        whole = joined(sets)
        if args.group_by is not None:
            whole = with_groups(whole, args.group_by, args.unit)
        elif whole.unit is None:
            raise DataError(
                f'{args.dataset}: its pictures have no groups, and frames of one drive in two '
                'splits make figures too good: say what they share with --group-by, or '
                '`--group-by picture` if each is its own'
            )
        hashes = [digest for each in found for digest in each.hashes]
        sets = divided(whole, hashes, dict(args.split), args.seed)
    elif args.group_by is not None:
        sets = [with_groups(each, args.group_by, args.unit) for each in sets]
    mended = [each for split in found for each in split.problems.found]
    write_coco(
        sets,
        args.out,
        {
            'source': str(args.dataset),
            'division': None if not args.split else {'seed': args.seed, **dict(args.split)},
            'repairs': [
                {'kind': each.kind, 'repair': each.repair, 'what': each.text} for each in mended
            ],
        },
    )
    for problem in mended:
        say(f'{problem.repair}: {problem.text}')
    if mended:
        say('\n' + problems_table(mended).to_text())
    for each in sets:
        boxes = sum(map(len, each.boxes))
        say(f'{args.out / each.split}: {len(each)} pictures, {boxes} boxes')
    return 0


def _show(args: argparse.Namespace) -> int:

    from pruned_perception.report.dataset import write_dataset_page

    check_output(args.out)
    found = _inspect(args)
    name = args.dataset.resolve().name
    write_dataset_page(found, args.out, title=name, pictures=max(0, args.pictures))
    if problems := sum(len(each.problems.found) for each in found):
        say(f'{args.dataset}: {problems} problems; `pruned-perception data check` lists them')
    say(f'{args.out}')
    return 0


def _inspect(args: argparse.Namespace, repairs: list[str] | None = None) -> list[Inspected]:
    from pruned_perception.cli.progress import Progress
    from pruned_perception.datasets.inspection import inspect

    with Progress('looking at pictures') as bar:
        return inspect(
            args.dataset,
            format_name=args.format,
            repairs=repairs or (),
            progress=lambda split, done, total: bar.phase(
                f'looking at pictures {split}'.strip(), done / total, ''
            ),
        )


def _facts(found: list[Inspected]) -> dict[str, object]:
    splits = [
        {
            'split': each.split,
            'pictures': 0 if each.notes is None else len(each.notes),
            'boxes': 0 if each.notes is None else sum(map(len, each.notes.boxes)),
            'groups': 0
            if each.notes is None or each.notes.unit is None
            else len(set(each.notes.groups)),
            'notes': each.problems.notes,
            'problems': [
                {'kind': problem.kind, 'what': problem.text} for problem in each.problems.found
            ],
        }
        for each in found
    ]
    kinds = Counter(problem.kind for each in found for problem in each.problems.found)
    return {'problems': dict(kinds), 'splits': splits}


def _share(text: str) -> tuple[str, float]:
    name, _, share = text.partition('=')
    try:
        value = float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not NAME=SHARE') from None
    if not name or '/' in name or name.startswith('.') or not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'{text!r} is not NAME=SHARE, with a share above 0')
    return name, value
