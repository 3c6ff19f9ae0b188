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

"""Networks in 8 bits written for an engine with channels last, and as the quantiser does: by turns.

    python -m studies.int8_channels_last models/robocup models/warehouse --images FRAMES

Each network in float is quantised twice, all layers but the first in 8 bits; how many outputs on
the held-out frames differ, and by how much of the largest. CPU time on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pruned_perception._tables import Table
from pruned_perception.bundle import Bundle, is_family, load_bundle, load_family
from pruned_perception.cli.quantize import frames_of
from pruned_perception.inference.detector import Detector
from pruned_perception.inference.engine import create_session
from pruned_perception.inference.intervals import median_interval
from pruned_perception.inference.processor import integer_arithmetic, processor_name
from pruned_perception.inference.timing import by_turns
from pruned_perception.quantization import SCHEMES, scheme_for_here
from pruned_perception.quantization.qdq import Quantizer

Picture = NDArray[np.uint8]


def main() -> None:
    """Quantise, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('bundles', nargs='+', type=Path)
    parser.add_argument('--images', type=Path, required=True)
    parser.add_argument('--frames', type=int, default=16, help='that calibrate, and to compare')
    parser.add_argument('--rounds', type=int, default=40)
    args = parser.parse_args()
    calibration, held_out = frames_of(args.images, None, args.frames, args.frames)
    print(f'{processor_name()}, {integer_arithmetic()}, {scheme_for_here()}')
    rows = []
    for path in args.bundles:
        for bundle in load_family(path).members if is_family(path) else (load_bundle(path),):
            if 'quantization' not in bundle.manifest:
                rows.append(
                    (
                        f'{path.name}/{bundle.name}',
                        *study(bundle, calibration, held_out, args.rounds),
                    )
                )
    print(
        Table.under(
            'network | before, ms:.2f | channels last, ms:.2f | × faster | 95 %'
            ' | outputs that differ | by at most',
            rows,
        ).to_text()
    )


def study(
    bundle: Bundle, calibration: Sequence[Picture], held_out: Sequence[Picture], rounds: int
) -> tuple[float, float, str, str, str, str]:
    """Return the medians of both, ms, their ratio, its interval, and how the outputs differ."""
    detector = Detector(bundle)
    feeds = [detector.feeds(each) for each in calibration]
    sessions = []
    for channels_last in (False, True):
        quantizer = Quantizer(bundle.onnx_bytes, feeds, bundle.name, channels_last=channels_last)
        layers = [each.name for each in quantizer.layers[1:]]
        sessions.append(create_session(quantizer.quantized(SCHEMES[scheme_for_here()], layers)))
    differing, values, most = 0, 0, 0.0
    for picture in held_out:
        inputs = detector.feeds(picture)
        for found, wanted in zip(*(each.run(None, inputs) for each in sessions), strict=True):
            differing += int(np.sum(found != wanted))
            values += wanted.size
            most = max(most, float(np.max(np.abs(found - wanted)) / np.max(np.abs(wanted))))
    times = by_turns(
        [partial(each.run, None, feeds[0]) for each in sessions],
        rounds=rounds,
        runs=5,
        rng=np.random.default_rng(0),
        clock=time.process_time_ns,  # other work on the machine does not count
    )
    before, after = np.median(times, -1)
    low, high = median_interval(before / after)
    return (
        float(np.median(before)),
        float(np.median(after)),
        f'{np.median(before / after):.3f}',
        f'[{low:.3f}, {high:.3f}]',
        f'{differing} of {values}',
        f'{most:.1g}',
    )


if __name__ == '__main__':
    main()
