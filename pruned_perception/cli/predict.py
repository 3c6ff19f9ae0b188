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

"""`pruned-perception predict`: size against error, from sensitivities; nothing is cut."""

from __future__ import annotations

import argparse
from pathlib import Path

from pruned_perception.cli.arguments import positive, probability
from pruned_perception.cli.output import check_output
from pruned_perception.cli.pruning_inputs import emit, read_json

SELECTIONS = ('random', 'deterministic')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `predict`."""
    parser.add_argument('sensitivities', type=Path, help='JSON file that `sensitivity --out` wrote')
    parser.add_argument(
        '--delta',
        type=probability,
        default=1e-3,
        help='probability with which bounds may fail (0.001)',
    )
    parser.add_argument(
        '--K',
        type=positive,
        help='how far new images may exceed the sensitivities (default: as their second half '
        'says, and 1, assumed, without)',
    )
    parser.add_argument(
        '--selection',
        choices=SELECTIONS,
        default=SELECTIONS[0],
        help='how channels would be chosen (default: %(default)s)',
    )
    parser.add_argument(
        '--epsilons',
        type=positive,
        nargs='+',
        metavar='E',
        help='errors to predict the size for (default: 25, from nothing pruned to one channel)',
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='JSON file for the curve')
    parser.add_argument('--json', action='store_true', help='print the curve as JSON')


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what shows without PyTorch."""
    check_output(args.out)
    read_json(args.sensitivities, dict)


def run(args: argparse.Namespace) -> int:
    """Predict, write, print."""
    from pruned_perception._io import write_json
    from pruned_perception.pruning import Sensitivity, predict

    sensitivity = read_json(args.sensitivities, Sensitivity.from_dict)
    curve = predict(
        sensitivity,
        delta=args.delta,
        K=args.K,
        selection=args.selection,
        epsilons=args.epsilons,
    )
    if args.out is not None:
        write_json(args.out, curve.to_dict())
    emit(args.json, curve.to_dict(), curve.to_text())
    return 0
