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

"""`pruned-perception demo`: a simulated robot, two detectors, one report; no arguments needed."""

from __future__ import annotations

import argparse
from pathlib import Path

from pruned_perception.cli.arguments import positive
from pruned_perception.cli.progress import Progress
from pruned_perception.errors import UserError

LEAST_SECONDS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        '-o', '--output', type=Path, default=Path('out/demo'), help='folder of the results'
    )
    parser.add_argument(
        '--model',
        default='package://pruned_perception/models/warehouse',
        help='family of bundles (default: %(default)s)',
    )
    parser.add_argument(
        '--member', default='', help='compared with the dense member (default: the smallest)'
    )
    parser.add_argument(
        '--seconds', type=positive, default=30.0, help='length of the recording (default: 30)'
    )


def run(args: argparse.Namespace) -> int:
    """Run the demonstration; an error, so 1, where detections did not arrive."""
    _check(args)
    from pruned_perception._processes import sigterm_as_ctrl_c
    from pruned_perception.benchmark.demo import Settings, demonstrate
    from pruned_perception.benchmark.report import write_report
    from pruned_perception.cli.report import print_summary

    settings = Settings(args.output, args.model, args.member, args.seconds)
    with sigterm_as_ctrl_c(), Progress('demo') as progress:
        demonstration = demonstrate(settings, progress.phase)
        progress.phase('report', None, '')
        page = write_report(demonstration)
    print_summary(demonstration, page)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise UserError where the end of the demonstration would show that it could not work."""
    from pruned_perception.bundle import load_family, resolve_model
    from pruned_perception.simulation import LABELS

    if args.seconds < LEAST_SECONDS:
        raise UserError(
            f'--seconds {args.seconds:g}: a recording of {LEAST_SECONDS} s at least is needed'
        )
    family = load_family(resolve_model(args.model))
    if args.member:
        family.member(args.member)
    if family.labels != LABELS:
        raise UserError(
            f'--model {args.model}: it finds {", ".join(family.labels[:3])}, …, and the simulated '
            f'hall has {", ".join(LABELS)}; to measure a detector of your own on your own images, '
            'see `pruned-perception benchmark node --source images:DIR`'
        )
