"""`pruned-perception prune`: a checkpoint, pruned to a budget, ready to be fine-tuned."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `prune`."""
    parser.add_argument('checkpoint', type=Path, help='a finished run: …/final.pt')
    parser.add_argument('--out', type=Path, required=True, help='the pruned checkpoint to write')
    parser.add_argument('--macs', type=float, metavar='X', help='share of the MACs to keep, 0 … 1')
    parser.add_argument(
        '--same-widths-as',
        type=Path,
        metavar='CHECKPOINT',
        help="instead of --macs: another pruned checkpoint's allocation, to compare criteria",
    )
    parser.add_argument(
        '--criterion', help='what scores the channels: filter_l1, filter_l2 (default) or random'
    )
    parser.add_argument(
        '--allocation', help='how the budget is divided: uniform (default) or retained_share'
    )
    parser.add_argument(
        '--block',
        type=int,
        help='kept channels are multiples of this, the block of the engine (default: 16)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of random criteria (%(default)s)')
    parser.add_argument(
        '--calibration',
        type=Path,
        metavar='DATASET',
        help='data set to measure the batch-norm statistics again on (recommended)',
    )
    parser.add_argument('--json', action='store_true', help='print the plan as JSON')


def run(args: argparse.Namespace) -> int:
    """Plan, prune, recalibrate, write."""
    from pruned_perception.pruning import Plan, PruningError, recalibrate
    from pruned_perception.training.checkpoint import (
        detector_from,
        read_checkpoint,
        save_checkpoint,
    )
    from pruned_perception.training.data import load_frames
    from pruned_perception.training.experiment import Pruning
    from pruned_perception.training.runs import (
        calibration_batches,
        pruned_detector,
        use_one_thread,
    )

    if (args.macs is None) == (args.same_widths_as is None):
        raise PruningError('give exactly one of --macs and --same-widths-as')
    use_one_thread()
    content = read_checkpoint(args.checkpoint)
    detector = detector_from(content, args.checkpoint)
    widths = None
    if args.same_widths_as is not None:
        other = read_checkpoint(args.same_widths_as)['ancestry'].get('plan')
        if other is None:
            raise PruningError(f'{args.same_widths_as}: not a pruned checkpoint: it has no plan')
        widths = Plan.from_dict(other).widths
    pruning = Pruning(args.macs or 1.0, args.criterion, args.allocation, args.block)
    small, plan = pruned_detector(detector, pruning, seed=args.seed, widths=widths)
    if args.calibration is not None:
        frames = load_frames(args.calibration, small.input_size)
        small = recalibrate(small, calibration_batches(frames))
    spent = content['cpu_seconds'] + content['ancestry'].get('cpu_seconds', 0.0)
    save_checkpoint(
        args.out,
        {
            **{key: content[key] for key in ('experiment', 'labels', 'data')},
            'architecture': small.architecture.to_dict(),
            'weights': small.state_dict(),
            'steps': 0,
            'cpu_seconds': 0.0,
            'ancestry': {'plan': plan.to_dict(), 'cpu_seconds': spent},
        },
    )
    print(json.dumps(plan.to_dict()) if args.json else plan.to_text())
    return 0
