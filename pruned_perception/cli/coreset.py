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

"""`pruned-perception coreset`: how many weights an end-to-end error takes, layer by layer."""

from __future__ import annotations

import argparse
from pathlib import Path

from pruned_perception.cli.arguments import positive, probability
from pruned_perception.cli.output import check_output
from pruned_perception.cli.pruning_inputs import (
    Watched,
    add_calibration,
    add_network,
    check_network,
    emit,
    load_network,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `coreset`."""
    add_network(parser)
    add_calibration(parser)
    parser.add_argument(
        '--epsilon',
        type=probability,
        default=0.5,
        metavar='E',
        help='relative error that every output may have, 0 … 1 (default: %(default)g)',
    )
    parser.add_argument(
        '--delta',
        type=probability,
        default=0.1,
        metavar='X',
        help='probability with which it may be exceeded (default: %(default)g)',
    )
    parser.add_argument(
        '--K',
        type=positive,
        default=1.0,
        help='how far new images may exceed the sensitivities (default: %(default)g)',
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='JSON file for the bound')
    parser.add_argument('--json', action='store_true', help='print the bound as JSON')


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what shows without PyTorch."""
    check_output(args.out)
    check_network(args)


def run(args: argparse.Namespace) -> int:
    """Measure, bound, write, print."""
    from pruned_perception._io import write_json
    from pruned_perception.cli.progress import Progress
    from pruned_perception.pruning import PruningError
    from pruned_perception.pruning.sparsity.coreset import coreset_bound, measure_chain

    network = load_network(args)
    if network.calibration is None:
        raise PruningError('the bound is measured on images: give --calibration DATASET')
    with Progress('coreset') as bar:
        measured = measure_chain(network.task.model, Watched(network.calibration, bar))
    bound = coreset_bound(measured, epsilon=args.epsilon, delta=args.delta, K=args.K)
    if args.out is not None:
        write_json(args.out, bound.to_dict())
    emit(args.json, bound.to_dict(), bound.to_text())
    return 0
