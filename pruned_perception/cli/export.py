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

"""`pruned-perception export`: a checkpoint, or a network of one's own, → bundle."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruned_perception.cli.arguments import add_device, compute_on
from pruned_perception.cli.describing import add_description, described, is_described
from pruned_perception.cli.output import check_checkpoint, check_file
from pruned_perception.errors import UserError

if TYPE_CHECKING:
    from pruned_perception.bundle import Bundle
    from pruned_perception.training.compute import Compute

COMPARED_IMAGES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `export`."""
    parser.add_argument(
        'checkpoint',
        type=Path,
        nargs='?',
        help='a finished run: …/final.pt; or what `prune` or `finetune` made of a bundle or task '
        '(with --task may be left out: then its network as it is)',
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
        metavar='DATASET',
        help='on whose first frames ONNX Runtime is compared with PyTorch: a data set, or images, '
        'video or bag for an ONNX detector; a task brings its own',
    )
    add_device(parser)
    parser.add_argument('--data-name', default='', help='what to call the training data')
    parser.add_argument('--data-licence', default='', help='licence of the training data')
    parser.add_argument('--weights-licence', default='Apache-2.0', help='(default: %(default)s)')
    own = parser.add_argument_group(
        'of a network of your own: what its outputs mean, and how images are prepared; see '
        'docs/bundle.md'
    )
    own.add_argument(
        '--task',
        metavar='PACKAGE.MODULE:FUNCTION',
        help='as of `prune`; modules of the working directory are found',
    )
    own.add_argument(
        '--weights', type=Path, metavar='FILE', help='state dict to load into its network'
    )
    own.add_argument(
        '--labels', type=Path, metavar='FILE', help='text file, one label a line, in order of id'
    )
    add_description(own)


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what shows without PyTorch."""
    if args.checkpoint is not None:
        check_checkpoint(args.checkpoint)
    if args.task is None:
        if args.checkpoint is None:
            raise UserError('give a checkpoint, or --task PACKAGE.MODULE:FUNCTION')
        if args.compare_on is None:
            raise UserError('--compare-on DATASET is needed: on it, both are to compute the same')
        if args.labels is not None or is_described(args):
            raise UserError('what outputs mean and how images are prepared is said with --task')
    elif args.labels is None:
        raise UserError('--labels FILE is needed with --task: the names of its classes, in order')
    else:
        check_file(args.labels)


def run(args: argparse.Namespace) -> int:
    """Export, compare, write."""
    from pruned_perception.bundle import load_bundle
    from pruned_perception.training.checkpoint import read_checkpoint
    from pruned_perception.training.compute import use_one_thread
    from pruned_perception.training.detector.checkpoint import detector_from
    from pruned_perception.training.detector.data import load_frames
    from pruned_perception.training.detector.export import COMPARED_FRAMES, export_bundle

    compute = compute_on(args.device)
    use_one_thread()
    if args.task is not None:
        return _export_task(args, compute)
    content = read_checkpoint(args.checkpoint)
    if 'plans' in content:
        return _export_onnx(args, content, compute)
    detector = compute.placed(detector_from(content, args.checkpoint))
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


def _export_onnx(args: argparse.Namespace, content: Mapping[str, Any], compute: Compute) -> int:
    from pruned_perception.bundle import load_member
    from pruned_perception.pruning import PruningError
    from pruned_perception.training.onnx_import.task import (
        bundle_task,
        export_bundle_network,
    )
    from pruned_perception.training.pipeline import load_pruned

    if args.parent is None:
        raise PruningError(
            f'{args.checkpoint}: was made of an ONNX detector, or of a task: give the bundle of '
            'the detector, --parent BUNDLE, or the task, --task PACKAGE.MODULE:FUNCTION'
        )
    bundle = load_member(args.parent)
    task = bundle_task(bundle, args.compare_on, COMPARED_IMAGES)
    exported = export_bundle_network(
        bundle,
        compute.placed(load_pruned(task, args.checkpoint)),  # type: ignore[arg-type]
        [each['plan'] for each in content['plans']],
        args.out,
        name=args.name or args.out.resolve().name,
        inputs=next(iter(task.calibration)),  # type: ignore[arg-type]
    )
    _print(exported)
    return 0


def _export_task(args: argparse.Namespace, compute: Compute) -> int:
    from pruned_perception.bundle import load_member, resolve_model
    from pruned_perception.datasets import read_labels
    from pruned_perception.training.checkpoint import read_checkpoint
    from pruned_perception.training.pipeline import load_pruned
    from pruned_perception.training.task import load_task
    from pruned_perception.training.task_export import export_task

    task = load_task(args.task, weights=args.weights)
    network, plans = task.model, []
    if args.checkpoint is not None:
        network = load_pruned(task, args.checkpoint)
        plans = [each['plan'] for each in read_checkpoint(args.checkpoint)['plans']]
    _print(
        export_task(
            task,
            compute.placed(network),
            plans,
            args.out,
            labels=read_labels(args.labels),
            name=args.name,
            parent=None if args.parent is None else load_member(resolve_model(str(args.parent))),
            provenance={
                'data': args.data_name,
                'data_licence': args.data_licence,
                'weights_licence': args.weights_licence,
            },
            **described(args),
        )
    )
    return 0


def _print(bundle: Bundle) -> None:
    print(
        f'{bundle.onnx_path}: {len(bundle.onnx_bytes) / 2**20:.2f} MiB, '
        f'{bundle.cost.macs / 1e6:.0f} MMAC, {bundle.cost.parameters / 1e6:.2f} M parameters'
    )
