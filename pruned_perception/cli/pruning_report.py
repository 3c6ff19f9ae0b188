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

"""`pruned-perception pruning-report`: a page about one pruned network, from JSON files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruned_perception.cli.output import check_file, check_output, say
from pruned_perception.cli.pruning_inputs import curves_of, read_json
from pruned_perception.errors import UserError

if TYPE_CHECKING:
    from pruned_perception.bundle import Bundle
    from pruned_perception.report.before_after import Pair
    from pruned_perception.report.findings import Findings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pruning-report`."""
    parser.add_argument(
        'pruned', type=Path, help='the .json that `prune` wrote, or a bundle of a pruned detector'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='FILE', help='the page, HTML')
    parser.add_argument('--name', help='what to call the network (default: as in the file)')
    parser.add_argument(
        '--sensitivity', type=Path, metavar='FILE', help='JSON of `sensitivity --out`'
    )
    parser.add_argument('--certificate', type=Path, metavar='FILE', help='JSON of `certify --out`')
    parser.add_argument('--comparison', type=Path, metavar='FILE', help='JSON table of `compare`')
    parser.add_argument(
        '--images',
        type=Path,
        metavar='SOURCE',
        help='of a bundle that lies beside its dense one: images, video or bag, of which the page '
        'shows those on which both differ most',
    )
    parser.add_argument('--json', action='store_true', help='print everything shown as JSON')


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what shows without PyTorch."""
    if not args.pruned.is_dir():  # a bundle
        check_file(args.pruned)
    check_output(args.out)


def run(args: argparse.Namespace) -> int:
    """Read, write the page."""
    from dataclasses import replace

    from pruned_perception.pruning import Sensitivity
    from pruned_perception.pruning.certificate import read_certificate
    from pruned_perception.report.page import write_report

    findings = _read(args.pruned)
    given: dict[str, Any] = {}
    if args.name is not None:
        given['name'] = args.name
    if args.sensitivity is not None:
        found = read_json(args.sensitivity, Sensitivity.from_dict)
        given['sensitivity'] = found
        given['curves'] = curves_of(found)
    if args.certificate is not None:
        given['certificate'] = read_json(args.certificate, read_certificate)
    if args.comparison is not None:
        given['comparison'] = read_json(args.comparison, dict)
    findings = replace(findings, **given)
    write_report(findings, args.out, _pictures(args))
    say(json.dumps(findings.to_dict()) if args.json else f'{args.out}: {findings.name}')
    return 0


def _read(path: Path) -> Findings:
    """Return what a file of `prune`, or a bundle's manifest, says."""
    from pruned_perception.bundle import load_bundle
    from pruned_perception.pruning import Plan, PruningError
    from pruned_perception.pruning.certificate import read_certificate
    from pruned_perception.report.findings import Findings, against

    if not path.is_dir():
        return read_json(path, Findings.from_dict)
    bundle = load_bundle(path)
    plan, certificate = bundle.manifest['pruning'], bundle.manifest['certificate']
    if plan is None:
        raise PruningError(f'{bundle.manifest_path}: field pruning: null: it was not pruned')
    try:
        return Findings(
            bundle.name,
            Plan.from_dict(plan),
            certificate=certificate and read_certificate(certificate),
            earlier=tuple(
                Plan.from_dict(each)
                for each in bundle.manifest['provenance'].get('earlier_plans', ())
            ),
            against=None if (dense := _dense(bundle)) is None else against(bundle, dense),
        )
    except PruningError as error:
        raise PruningError(
            f'{bundle.manifest_path}: written by another version; prune and export again: {error}'
        ) from error


def _dense(bundle: Bundle) -> Bundle | None:
    """Return the dense bundle that a bundle was pruned from, if both are members of a family."""
    from pruned_perception.bundle import is_family, load_family

    folder, parent = bundle.path.resolve().parent, bundle.manifest['parent']
    if parent is None or not is_family(folder):
        return None
    members = load_family(folder).members
    return next((each for each in members if each.sha256 == parent['sha256']), None)


def _pictures(args: argparse.Namespace) -> tuple[Pair, ...]:
    """Return the frames of `--images` on which dense and pruned network differ most."""
    from pruned_perception.bundle import load_bundle
    from pruned_perception.inference.sources import open_source
    from pruned_perception.report.before_after import most_different

    if args.images is None:
        return ()
    bundle = load_bundle(args.pruned) if args.pruned.is_dir() else None
    dense = None if bundle is None else _dense(bundle)
    if bundle is None or dense is None:
        raise UserError(
            f'--images {args.images}: both networks are needed: give the bundle of the pruned one, '
            'in a folder with the dense one'
        )
    return most_different(dense, bundle, open_source(args.images).frames)
