"""`pruned-perception sensitivity`: how compressible every layer is, measured without labels."""

from __future__ import annotations

import argparse
from pathlib import Path

from pruned_perception.cli.arguments import Renamed
from pruned_perception.cli.pruning_inputs import (
    Watched,
    add_calibration,
    add_network,
    check_output,
    emit,
    load_network,
    positions,
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
    parser.add_argument(
        '--positions',
        type=positions,
        default=8,
        metavar='N|all',
        help='output positions that are sampled per image; all: exact, slow (default: %(default)s)',
    )
    parser.add_argument('--json', action='store_true', help='print the sensitivities as JSON')


def run(args: argparse.Namespace) -> int:
    """Measure, write, print."""
    from pruned_perception._io import write_json
    from pruned_perception.cli.progress import Progress
    from pruned_perception.pruning import PruningError, estimate_sensitivity

    check_output(args.out)
    network = load_network(args)
    if network.calibration is None:
        raise PruningError('sensitivities are measured on images: give --calibration DATASET')
    with Progress('sensitivity') as bar:
        found = estimate_sensitivity(
            network.task.model,
            Watched(network.calibration, bar),
            example_inputs=network.task.example_inputs,
            definition=args.criterion,
            positions=args.positions,
            seed=args.seed,
        )
    if args.out is not None:
        write_json(args.out, found.to_dict())
    emit(args.json, found.to_dict(), found.to_text())
    return 0
