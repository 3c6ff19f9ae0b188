"""`pruned-perception export`: checkpoint → bundle."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `export`."""
    parser.add_argument('checkpoint', type=Path, help='a finished run: …/final.pt')
    parser.add_argument('--out', type=Path, required=True, help='folder of the bundle to write')
    parser.add_argument('--name', help='name of the bundle (default: the folder)')
    parser.add_argument(
        '--parent', type=Path, metavar='BUNDLE', help='the dense bundle that this was pruned from'
    )
    parser.add_argument(
        '--compare-on',
        type=Path,
        required=True,
        metavar='DATASET',
        help='data set on whose first frames ONNX Runtime is compared with PyTorch',
    )
    parser.add_argument('--data-name', default='', help='what to call the training data')
    parser.add_argument('--data-licence', default='', help='licence of the training data')
    parser.add_argument('--weights-licence', default='Apache-2.0', help='(default: %(default)s)')


def run(args: argparse.Namespace) -> int:
    """Export, compare, write."""
    from pruned_perception.bundle import load_bundle
    from pruned_perception.training.checkpoint import read_checkpoint
    from pruned_perception.training.compute import use_one_thread
    from pruned_perception.training.detector.checkpoint import detector_from
    from pruned_perception.training.detector.data import load_frames
    from pruned_perception.training.detector.export import COMPARED_FRAMES, export_bundle

    use_one_thread()
    content = read_checkpoint(args.checkpoint)
    detector = detector_from(content, args.checkpoint)
    bundle = export_bundle(
        content,
        detector,
        load_frames(args.compare_on, detector.input_size, labelled=False).images[:COMPARED_FRAMES],
        args.out,
        name=args.name or args.out.resolve().name,
        parent=None if args.parent is None else load_bundle(args.parent),
        provenance={
            'data': args.data_name,
            'data_licence': args.data_licence,
            'weights_licence': args.weights_licence,
        },
    )
    print(
        f'{bundle.onnx_path}: {len(bundle.onnx_bytes) / 2**20:.2f} MiB, '
        f'{bundle.cost.macs / 1e6:.0f} MMAC, {bundle.cost.parameters / 1e6:.2f} M parameters'
    )
    return 0
