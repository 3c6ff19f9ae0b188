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

"""8 bits beside float: CPU time by turns, divergence, output error and, with labels, AP50.

    python -m studies.int8 models/warehouse --images FRAMES --dataset TEST --results FILE
    python -m studies.int8 BUNDLE … --images ROBOT_FRAMES --yolo human=person --results FILE

Every member is quantised in every scheme with all layers in 8 bits, then with the first in float
where the network is faster so, and as `quantize` does it
by default, with sensitive layers in float, too. FRAMES calibrate and compare as in that command.
`--dataset` is an annotated set with the bundles' labels. `--yolo` says which class of the text
files beside the images (named by obj.names above them) is which of the bundle's: then AP50 is that
of the held-out images, over these classes. FILE keeps what is done, bundle by bundle.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pruned_perception._io import read_json, write_json
from pruned_perception._tables import Table
from pruned_perception.benchmark.engine import compare, measure, of_bundle
from pruned_perception.bundle import Bundle, is_family, load_bundle, load_family
from pruned_perception.cli.quantize import frames_of
from pruned_perception.datasets import read_dataset
from pruned_perception.inference.coco_metrics import Boxes, coco_metrics
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.detector import Detector
from pruned_perception.inference.processor import integer_arithmetic, processor_name
from pruned_perception.quantization import SCHEMES, quantize_bundle

MIN_SCORE = 0.01
Labelled = Iterator[tuple[np.ndarray, Boxes]]


def main() -> None:
    """Quantise, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('bundles', nargs='+', type=Path)
    parser.add_argument('--images', type=Path, required=True)
    parser.add_argument('--dataset', type=Path)
    parser.add_argument('--frames', type=int, default=300, help='of the data set')
    parser.add_argument('--yolo', nargs='+', metavar='NAME=LABEL', default=[])
    parser.add_argument('--results', type=Path, required=True)
    parser.add_argument('--schemes', nargs='+', default=list(SCHEMES), choices=list(SCHEMES))
    parser.add_argument('--rounds', type=int, default=20)
    args = parser.parse_args()
    names = dict(each.split('=', 1) for each in args.yolo)
    done = read_json(args.results) if args.results.exists() else {}
    for path in args.bundles:
        members = load_family(path).members if is_family(path) else (load_bundle(path),)
        for bundle in members:
            if 'quantization' not in bundle.manifest and bundle.name not in done:
                done[bundle.name] = study(bundle, args, names)
                write_json(args.results, done)
    print(f'{processor_name()}, {integer_arithmetic()}; load {os.getloadavg()[0]:.1f}')
    header = (
        ' | ms:.3f | × faster | 95 % | divergence:.4f | output error:.4f | lost | invented'
        ' | in float | AP50:.3f'
    )
    for name, rows in done.items():
        print(f'\n{name}')
        cells = [
            (
                row['scheme'],
                row['ms'],
                f'{row["speedup"]:.2f}',
                '{:.2f}–{:.2f}'.format(*row['interval']),
                row['divergence'],
                row['output_error'],
                f'{row["lost"]}/{row["shown"]}',
                row['invented'],
                f'{row["float_layers"]}/{row["layers"]}',
                row['ap50'],
            )
            for row in rows
        ]
        print(Table.under(header, cells).to_text())


def study(bundle: Bundle, args: argparse.Namespace, names: Mapping[str, str]) -> list[Any]:
    """Return a row for the float and for each way to quantise."""
    calibration, held_out = frames_of(args.images, None, 64, 64)
    rows: list[dict[str, Any]] = [
        {
            'scheme': 'float',
            **dict.fromkeys(('divergence', 'output_error', 'lost', 'invented', 'shown'), 0),
            'float_layers': 0,
            'layers': 0,
        }
    ]
    bundles = [bundle]
    with TemporaryDirectory() as folder:
        ways: list[tuple[str, str, float, int | None]] = [
            *((scheme, scheme, 0.0, 0) for scheme in args.schemes),
            ('start in float', 'auto', 0.0, None),
            ('default', 'auto', 0.2, None),
        ]
        for label, scheme, share, leading in ways:
            print(f'{bundle.name}: {label}', flush=True)
            quantized, record = quantize_bundle(
                bundle,
                calibration,
                Path(folder) / label,
                held_out=held_out,
                scheme=scheme,
                float_share=share,
                leading_float=leading,
            )
            bundles.append(quantized)
            rows.append(
                {
                    'scheme': f'{record.scheme}{", mixed" * (share > 0)}'
                    f'{", start in float" * (record.leading_float > 0)}',
                    **{
                        key: getattr(record, key)
                        for key in ('divergence', 'output_error', 'lost', 'invented', 'shown')
                    },
                    'float_layers': len(record.float_layers),
                    'layers': record.layers,
                }
            )
        times = measure(
            [of_bundle(each) for each in bundles],
            rounds=args.rounds,
            runs=5,
            clock=time.process_time_ns,  # other work on the machine does not count
        )
        found = compare([of_bundle(each) for each in bundles], times)
        for row, latency, each in zip(rows, found, bundles, strict=True):
            row['ms'] = latency.latency.p50
            row['speedup'], row['interval'] = latency.speedup, latency.speedup_interval
            row['ap50'] = ap50(each, args, names)
    return rows


def ap50(bundle: Bundle, args: argparse.Namespace, names: Mapping[str, str]) -> float | None:
    """Return the AP50 on the labelled frames; None without any."""
    if args.dataset is not None:
        pairs, labels = in_dataset(bundle, args.dataset, args.frames), bundle.labels
    elif names:
        pairs, labels = in_text(args.images, names), tuple(names.values())
    else:
        return None
    detector = Detector(bundle)
    settings = replace(detector.settings, score_threshold=MIN_SCORE)
    truth, found = [], []
    for image, boxes in pairs:
        seen = detector.detect(image, 'bgr', settings)[0]
        ids = np.array([labels.index(x) if x in labels else -1 for x in bundle.labels])
        ids = ids[seen.class_ids]
        keep = ids >= 0
        found.append(Detections(seen.boxes[keep], seen.scores[keep], ids[keep]))
        truth.append(boxes)
    return coco_metrics(truth, found, labels).ap50


def in_dataset(bundle: Bundle, folder: Path, frames: int) -> Labelled:
    """Yield the first frames of an annotated set."""
    notes = read_dataset(folder).with_labels(bundle.labels, bundle.name)
    rows = zip(notes.images(), notes.boxes, notes.class_ids, notes.crowd, strict=False)
    for number, (image, boxes, ids, crowd) in enumerate(rows):
        if number == frames:
            return
        yield image, Boxes(boxes, ids, crowd)


def in_text(folder: Path, names: Mapping[str, str]) -> Labelled:
    """Yield the last quarter of the images, which calibrated nothing, with YOLO's text files."""
    import cv2

    classes = (folder / 'obj.names').read_text().split('\n')
    files = sorted(folder.rglob('*.jpg'))
    for file in files[len(files) - round(len(files) / 4) :]:
        image = cv2.imread(str(file))
        height, width = image.shape[:2]
        boxes, ids = [], []
        for line in file.with_suffix('.txt').read_text().splitlines():
            kind, x, y, w, h = (float(each) for each in line.split()[:5])
            if classes[int(kind)] in names:
                ids.append(list(names).index(classes[int(kind)]))
                boxes.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
        scale = np.array([width, height] * 2)
        yield image, Boxes(np.array(boxes).reshape(-1, 4) * scale, np.array(ids, int))


if __name__ == '__main__':
    main()
