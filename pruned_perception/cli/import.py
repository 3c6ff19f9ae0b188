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

"""`pruned-perception import`: bundle → checkpoint, the way back from `export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pruned_perception.cli.arguments import add_device, compute_on


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
    add_device(parser)


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
    compute = compute_on(args.device)
    use_one_thread()
    bundle = load_member(resolve_model(args.bundle))
    frames = load_frames(
        args.calibration, (bundle.input.height, bundle.input.width), labelled=False
    )
    content = import_bundle(bundle, frames, compute)
    save_checkpoint(args.out, content)
    print(
        f'{args.out}: {bundle.name}, {bundle.cost.macs / 1e6:.0f} MMAC, trained for '
        f'{total_cpu_seconds(content) / 60:.1f} CPU minutes'
    )
    return 0
