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

"""Whether files in 8 bits compute on this processor what they did where they were made.

    python -m studies.int8_elsewhere models/warehouse/tenth U8S8 U8S7 --images FRAMES

with the bundle in float and what `quantize` made of it. Under QEMU's user emulation the engine
takes the kernels of the processor that is named, and computes as they do; times mean nothing there:

    qemu-x86_64 -cpu Haswell python -S -m studies.int8_elsewhere …

(without `site`, which may start Python anew, unemulated; the packages by PYTHONPATH).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from pruned_perception._tables import Table
from pruned_perception.bundle import load_bundle
from pruned_perception.cli.quantize import frames_of
from pruned_perception.inference.detector import Detector
from pruned_perception.inference.divergence import divergence, relative_error
from pruned_perception.inference.reference import deviations, reference_picture
from pruned_perception.quantization import saturates


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('bundle', type=Path, help='in float')
    parser.add_argument('quantized', type=Path, nargs='+')
    parser.add_argument('--images', type=Path, required=True)
    parser.add_argument('--frames', type=int, default=4)
    args = parser.parse_args()
    print(f'8-bit sums saturate here: {"yes" if saturates() else "no"}')
    pictures = frames_of(args.images, None, 1, args.frames)[1]
    parent = Detector(load_bundle(args.bundle))
    wanted = [parent.outputs(each) for each in pictures]
    rows = []
    for path in args.quantized:
        bundle = load_bundle(path)
        section = bundle.manifest['quantization']
        manifest = {key: value for key, value in bundle.manifest.items() if key != 'quantization'}
        child = Detector(replace(bundle, manifest=manifest))  # without the check, to see why
        spec = bundle.input
        found = child.outputs(reference_picture(spec.height, spec.width))
        off, slack = max(deviations(section['check'], found), key=lambda each: each[0] - each[1])
        outputs = [child.outputs(each) for each in pictures]
        theirs, mine = (
            [one.decoded(each) for each in many]
            for one, many in ((parent, wanted), (child, outputs))
        )
        rows.append(
            (
                bundle.name,
                section['scheme'],
                off,
                slack,
                'loads' if off <= slack else 'refused',
                relative_error(wanted, outputs),
                divergence(theirs, mine),
            )
        )
    header = ' | scheme | off by:.3g | allowed:.3g | at load | output error:.4f | divergence:.4f'
    print(Table.under(header, rows).to_text())


if __name__ == '__main__':
    main()
