"""`pruned-perception import`: bundle → checkpoint, the way back from `export`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `import`."""
    parser.add_argument(
        'bundle', help='bundle of our detector, or a family, of which the dense member is taken'
    )
    parser.add_argument('--out', type=Path, required=True, help='the checkpoint to write')
    parser.add_argument(
        '--calibration',
        type=Path,
        required=True,
        metavar='DATASET',
        help='data set like that of the training, to measure the batch-norm statistics on',
    )


def run(args: argparse.Namespace) -> int:
    """Read, measure, compare, write."""
    from pruned_perception.bundle import load_member, resolve_model
    from pruned_perception.training.checkpoint import CheckpointError, save_checkpoint
    from pruned_perception.training.compute import use_one_thread
    from pruned_perception.training.detector.checkpoint import total_cpu_seconds
    from pruned_perception.training.detector.data import load_frames
    from pruned_perception.training.detector.importing import import_bundle

    if args.out.exists():
        raise CheckpointError(f'{args.out}: is there already; delete it or choose another name')
    use_one_thread()
    bundle = load_member(resolve_model(args.bundle))
    frames = load_frames(
        args.calibration, (bundle.input.height, bundle.input.width), labelled=False
    )
    content = import_bundle(bundle, frames)
    save_checkpoint(args.out, content)
    print(
        f'{args.out}: {bundle.name}, {bundle.cost.macs / 1e6:.0f} MMAC, trained for '
        f'{total_cpu_seconds(content) / 60:.1f} CPU minutes'
    )
    return 0
