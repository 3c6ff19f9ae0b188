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

"""`pruned-perception export`: checkpoint → bundle."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruned_perception.cli.output import check_checkpoint

if TYPE_CHECKING:
    from pruned_perception.bundle import Bundle

COMPARED_IMAGES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `export`."""
    parser.add_argument(
        'checkpoint', type=Path, help='a finished run: …/final.pt; or what `prune` made of a bundle'
    )
    parser.add_argument('--out', type=Path, required=True, help='folder of the bundle to write')
    parser.add_argument('--name', help='name of the bundle (default: the folder)')
    parser.add_argument(
        '--parent',
        type=Path,
        metavar='BUNDLE',
        help='the dense bundle that this was pruned from; of an ONNX detector it is needed',
    )
    parser.add_argument(
        '--compare-on',
        type=Path,
        required=True,
        metavar='DATASET',
        help='data set (of an ONNX detector: images, video or bag) on whose first frames ONNX '
        'Runtime is compared with PyTorch',
    )
    parser.add_argument('--data-name', default='', help='what to call the training data')
    parser.add_argument('--data-licence', default='', help='licence of the training data')
    parser.add_argument('--weights-licence', default='Apache-2.0', help='(default: %(default)s)')


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what shows without PyTorch."""
    check_checkpoint(args.checkpoint)


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
    if 'plans' in content:
        return _export_onnx(args, content)
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
    _print(bundle)
    return 0


def _export_onnx(args: argparse.Namespace, content: Mapping[str, Any]) -> int:
    from pruned_perception.bundle import load_member
    from pruned_perception.pruning import PruningError
    from pruned_perception.training.onnx_import.task import (
        bundle_task,
        export_bundle_network,
    )
    from pruned_perception.training.pipeline import load_pruned

    if args.parent is None:
        raise PruningError(
            f'{args.checkpoint}: was made of an ONNX detector, or of a task, which cannot be '
            'exported: give the bundle of the detector, --parent BUNDLE'
        )
    bundle = load_member(args.parent)
    task = bundle_task(bundle, args.compare_on, COMPARED_IMAGES)
    exported = export_bundle_network(
        bundle,
        load_pruned(task, args.checkpoint),  # type: ignore[arg-type]
        [each['plan'] for each in content['plans']],
        args.out,
        name=args.name or args.out.resolve().name,
        inputs=next(iter(task.calibration)),  # type: ignore[arg-type]
    )
    _print(exported)
    return 0


def _print(bundle: Bundle) -> None:
    print(
        f'{bundle.onnx_path}: {len(bundle.onnx_bytes) / 2**20:.2f} MiB, '
        f'{bundle.cost.macs / 1e6:.0f} MMAC, {bundle.cost.parameters / 1e6:.2f} M parameters'
    )
