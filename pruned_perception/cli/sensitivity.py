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

"""`pruned-perception sensitivity`: how compressible every layer is, measured without labels."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pruned_perception.cli.arguments import Renamed, add_device, compute_on
from pruned_perception.cli.output import check_output
from pruned_perception.cli.pruning_inputs import (
    Watched,
    add_calibration,
    add_network,
    add_positions,
    check_network,
    emit,
    halves,
    load_network,
)

CRITERIA = ('absolute', 'quadrants', 'summed')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sensitivity`."""
    add_network(parser)
    add_calibration(parser)
    parser.add_argument(
        '--out', type=Path, metavar='FILE', help='JSON file, for `predict` and `pruning-report`'
    )
    parser.add_argument(
        '--criterion',
        choices=CRITERIA,
        default=CRITERIA[0],
        help='what counts as sensitivity, see docs/pruning.md (default: %(default)s)',
    )
    parser.add_argument('--definition', action=Renamed, metavar='--criterion')
    add_positions(parser)
    add_device(parser)
    parser.add_argument(
        '--second-half',
        action='store_true',
        help='measure on every other image and learn from the rest how far new images exceed that '
        '(K); with --positions all',
    )
    parser.add_argument('--json', action='store_true', help='print the sensitivities as JSON')


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what shows without PyTorch."""
    check_output(args.out)
    check_network(args)


def run(args: argparse.Namespace) -> int:
    """Measure, write, print."""
    from pruned_perception._io import write_json
    from pruned_perception.cli.progress import Progress
    from pruned_perception.pruning import PruningError, estimate_sensitivity
    from pruned_perception.pruning.estimation import with_second_half

    compute = compute_on(args.device)
    network = load_network(args).placed(compute)
    if network.calibration is None:
        raise PruningError('sensitivities are measured on images: give --calibration DATASET')
    if args.second_half and args.positions is not None:
        raise PruningError('--second-half: K is of all positions; give --positions all')
    first: Iterable[Any] = network.calibration
    if args.second_half:
        first, second = halves(network.calibration)
    model = network.task.model
    with Progress('sensitivity') as bar:
        found = estimate_sensitivity(
            model,
            Watched(first, bar),
            example_inputs=network.task.example_inputs,
            definition=args.criterion,
            positions=args.positions,
            seed=args.seed,
        )
        if not found.values:
            raise PruningError(f'{network.name}: {found.structure.nothing_to_prune()}')
        if args.second_half:
            bar.phase('second half', None, '')
            found = with_second_half(found, model, Watched(second, bar))
    if args.out is not None:
        write_json(args.out, found.to_dict())
    emit(args.json, found.to_dict(), found.to_text())
    return 0
