"""`pruned-perception predict`: size against error, from sensitivities; nothing is cut."""

from __future__ import annotations

import argparse
from pathlib import Path

from pruned_perception.cli.pruning_inputs import check_output, emit, read_json

SELECTIONS = ('random', 'deterministic')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `predict`."""
    parser.add_argument('sensitivities', type=Path, help='JSON file that `sensitivity --out` wrote')
    parser.add_argument(
        '--delta', type=float, default=1e-3, help='probability with which bounds may fail (0.001)'
    )
    parser.add_argument(
        '--K',
        type=float,
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
        type=float,
        nargs='+',
        metavar='E',
        help='errors to predict the size for (default: 25, from nothing pruned to one channel)',
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='JSON file for the curve')
    parser.add_argument('--json', action='store_true', help='print the curve as JSON')


def run(args: argparse.Namespace) -> int:
    """Predict, write, print."""
    from pruned_perception._io import write_json
    from pruned_perception.pruning import Sensitivity, predict

    check_output(args.out)
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
