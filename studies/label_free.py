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

"""What pruning without labels keeps: an over-sized detector in simulation, compact ones on robots.

    pruned-perception simulate --split train --frames 300 --seed 77 --out DATA/drive
    pruned-perception simulate --split test --frames 600 --out DATA/test
    python -m studies.label_free warehouse DATA --macs 0.5 --minutes 30 --folder WORK

The labels of `drive` are never read. Its last 60 frames (three layouts) steer; accuracy is that of
the exported bundle on `test`, whose layouts, textures and lights are others.

    python -m studies.label_free yolox SHARED --macs 0.8 --minutes 20 --recipe compact --folder WORK

    python -m studies.label_free coco SHARED --macs 0.6 --minutes 5 --recipe compact --folder WORK

SHARED holds `robocup_msl`, `detectors` and `coco128_train`. `coco` is FastestDet on photographs:
one half of them is fitted to and steered by, and AP50 of its 80 labels is that of the other half.
Otherwise frames of two days are judged on (people and balls, whose labels nothing else reads),
those of two others steer, and all others are fitted on.

With `--macs 1` the parent itself is judged. The line that is printed at the end is added to
`results/label_free.jsonl`, of which `python -m studies.label_free table` makes a table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pruned_perception._io import write_json
from pruned_perception._tables import Table
from pruned_perception.bundle import Bundle, load_bundle, write_bundle
from pruned_perception.datasets import read_dataset
from pruned_perception.inference.accuracy import MIN_SCORE
from pruned_perception.inference.coco_metrics import Boxes, coco_metrics
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.detector import Detector
from pruned_perception.inference.latency_table import read_table
from pruned_perception.pruning import Latency, Macs
from pruned_perception.pruning.budget import Budget
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.compute import use_one_thread
from pruned_perception.training.label_free import RECIPES, prune_label_free
from pruned_perception.training.onnx_import.task import export_bundle_network

RESULTS = Path(__file__).with_name('results') / 'label_free.jsonl'
STEERING = 60
JUDGED, STEERED = ('20240606', '20240719'), ('20240716', '20240720')
LABELS = ('person', 'sports ball')
IN_ROBOCUP = {2: 0, 0: 1}  # its human and ball → LABELS
DETECTORS: dict[str, dict[str, Any]] = {
    'yolox': {
        'file': 'yolox_nano/yolox_nano.onnx',
        'input': {'name': 'images', 'shape': [1, 3, 416, 416], 'align': 'top_left'},
        'outputs': ['output'],
        'thresholds': {'score': 0.3, 'iou': 0.45, 'max_detections': 100},
    },
    'nanodet': {
        'file': 'nanodet_m/nanodet_m_320.onnx',
        'input': {
            'name': 'input.1',
            'shape': [1, 3, 320, 320],
            'pad_value': 0,
            'mean': [103.53, 116.28, 123.675],
            'std': [57.375, 57.12, 58.395],
        },
        'outputs': [f'{kind}_pred_stride_{s}' for kind in ('cls', 'dis') for s in (8, 16, 32)],
        'thresholds': {'score': 0.35, 'iou': 0.6, 'max_detections': 100},
    },
    'fastestdet': {
        'file': 'fastestdet/FastestDet.onnx',
        'input': {
            'name': 'input.1',
            'shape': [1, 3, 352, 352],
            'resize': 'stretch',
            'std': [255, 255, 255],
        },
        'outputs': ['758'],
        'thresholds': {'score': 0.65, 'iou': 0.45, 'max_detections': 100},
    },
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A parent; frames to fit to, to steer by, and to judge by, with boxes of `labels`."""

    bundle: Bundle
    frames: Sequence[np.ndarray]
    held_out: Sequence[np.ndarray]
    judged: Sequence[np.ndarray]
    truth: Sequence[Boxes]
    labels: tuple[str, ...]


def warehouse(data: Path, folder: Path) -> Case:
    """Return our over-sized detector with a simulated drive."""
    bundle = load_bundle('models/warehouse/dense')
    frames = list(read_dataset(data / 'drive').images())
    test = read_dataset(data / 'test').with_labels(bundle.labels, bundle.name)
    truth = [Boxes(*each) for each in zip(test.boxes, test.class_ids, test.crowd, strict=True)]
    images = list(test.images())
    return Case(bundle, frames[:-STEERING], frames[-STEERING:], images, truth, bundle.labels)


def robot(name: str, data: Path, folder: Path) -> Case:
    """Return a public detector with frames of robots that play football."""
    days = {day.name: sorted(day.rglob('*.jpg')) for day in (data / 'robocup_msl').glob('2*')}

    def pictures(of: Sequence[str]) -> list[np.ndarray]:
        return [cv2.imread(str(file)) for day in of for file in days[day]]

    others = sorted(set(days) - {*JUDGED, *STEERED})
    truth = [
        _truth(file, file.with_suffix('.txt'), IN_ROBOCUP) for day in JUDGED for file in days[day]
    ]
    bundle = bundle_of(name, data, folder / 'parent')
    return Case(bundle, pictures(others), pictures(STEERED), pictures(JUDGED), truth, LABELS)


def coco(data: Path, folder: Path) -> Case:
    """Return FastestDet with photographs: every second one is judged on."""
    bundle = bundle_of('fastestdet', data, folder / 'parent')
    files = sorted((data / 'coco128_train' / 'images').glob('*.jpg'))
    own = [cv2.imread(str(each)) for each in files[::2]]
    labels = [data / 'coco128_train' / 'labels' / f'{each.stem}.txt' for each in files[1::2]]
    ids = {number: number for number in range(len(bundle.labels))}
    truth = [_truth(file, each, ids) for file, each in zip(files[1::2], labels, strict=True)]
    judged = [cv2.imread(str(each)) for each in files[1::2]]
    steering = slice(None, None, 4)
    held_out = own[steering]
    del own[steering]
    return Case(bundle, own, held_out, judged, truth, bundle.labels)


def bundle_of(name: str, data: Path, folder: Path) -> Bundle:
    """Write the bundle of a public detector: its ONNX file, and how its authors prepare images."""
    facts = DETECTORS[name]
    labels = (data / 'coco128_train' / 'coco.names').read_text('utf-8').split('\n')[:80]
    spec = {
        'dtype': 'float32', 'layout': 'NCHW', 'color': 'bgr', 'resize': 'letterbox',
        'align': 'center', 'pad_value': 114, 'mean': [0, 0, 0], 'std': [1, 1, 1], **facts['input'],
    }  # fmt: skip
    manifest = {
        'schema_version': 1, 'name': name, 'input': spec,
        'output': {'names': facts['outputs'], 'decoder': name, 'parameters': {}},
        'labels': labels, 'thresholds': facts['thresholds'], 'cost': {'parameters': 0, 'macs': 0},
        'parent': None, 'pruning': None, 'certificate': None, 'evaluation': [], 'latency': [],
        'provenance': {'created': '2026-01-01T00:00:00Z', 'tool': 'studies.label_free'},
    }  # fmt: skip
    return write_bundle(folder, (data / 'detectors' / facts['file']).read_bytes(), manifest)


def _truth(image: Path, labels: Path, known: Mapping[int, int]) -> Boxes:
    """Return the boxes of a YOLO file, of the classes that are known, by their new numbers."""
    height, width = cv2.imread(str(image)).shape[:2]
    text = labels.read_text('utf-8') if labels.is_file() else ''
    rows = [line.split() for line in text.splitlines()]
    table = np.array([row for row in rows if int(row[0]) in known], float).reshape(-1, 5)
    half = table[:, 3:] / 2
    corners = np.concatenate((table[:, 1:3] - half, table[:, 1:3] + half), 1)
    ids = [known[int(each)] for each in table[:, 0]]
    return Boxes(corners * [width, height, width, height], np.array(ids, np.int64))


def accuracy(bundle: Bundle, case: Case) -> dict[str, float]:
    """Return AP50 of a bundle, and of each label where there are few."""
    detector = Detector(bundle)
    settings = dataclasses.replace(detector.settings, score_threshold=MIN_SCORE)
    of = {bundle.labels.index(label): index for index, label in enumerate(case.labels)}
    found = []
    for image in case.judged:
        each = detector.detect(image, settings=settings)[0]
        mine = np.isin(each.class_ids, list(of))
        ids = np.array([of[int(k)] for k in each.class_ids[mine]], np.int64)
        found.append(Detections(each.boxes[mine], each.scores[mine], ids))
    metrics = coco_metrics(
        case.truth, found, case.labels, score_threshold=detector.settings.score_threshold
    )
    figures = {'ap50': metrics.overall.ap50, 'ap50_95': metrics.overall.ap50_95}
    if len(case.labels) <= len(LABELS):
        figures |= {name: each.ap50 for name, each in metrics.per_class.items()}
    return {name: round(value, 4) for name, value in figures.items()}


def study(args: argparse.Namespace) -> dict[str, Any]:
    """Prune a detector, and return what became of it."""
    of = {'warehouse': warehouse, 'coco': coco}
    make = of.get(args.study, lambda *where: robot(args.study, *where))
    case = make(args.data, args.folder)
    if args.macs == 1:
        return accuracy(case.bundle, case)
    recipe = dataclasses.replace(RECIPES[args.recipe], **json.loads(args.change))
    budget: Budget = Macs(args.macs)
    if args.table is not None:
        table = read_table(args.table)
        budget = Latency(table.whole.ms / args.speedup, table)
    began = time.process_time()
    result = prune_label_free(
        case.bundle,
        case.frames,
        budget,
        recipe=recipe,
        training=None if not args.minutes else TrainingBudget(cpu_minutes=args.minutes),
        held_out=case.held_out,
        seed=args.seed,
        folder=args.folder / 'work',
        report=lambda title, share, remark: print(f'{title} {share:.0%} {remark}', flush=True),
    )
    seconds = time.process_time() - began
    print(result.record.to_text())
    small = export_bundle_network(
        case.bundle,
        result.network,  # type: ignore[arg-type]
        [plan.to_dict() for plan in result.plans],
        args.folder / 'bundle',
        name='label-free',
    )
    write_json(args.folder / 'record.json', result.record.to_dict())
    stages = result.record.to_dict()['stages']
    minutes = {'cpu_minutes': round(seconds / 60, 1)}
    found = {**accuracy(small, case), 'macs': small.cost.macs, **minutes, 'stages': stages}
    return {**found, 'share': round(small.cost.macs / result.record.dense_macs, 3)}


def table(results: Path) -> str:
    """Return the lines of the results as a Markdown table."""
    header = (
        'detector | MACs kept:.2f | recipe | changed | CPU minutes:.1f | steps:,d | '
        'refitted: error:.2f | agreement:.3f | of the parent’s, AP50:.3f | taught: agreement:.3f | '
        'of the parent’s, AP50:.3f | AP50:.4f | person:.4f | '
        'ball:.4f | note'
    )
    rows = []
    for line in results.read_text('utf-8').splitlines():
        found = json.loads(line)
        stages = found.get('stages', [])
        last = stages[-1] if stages else {}
        refitted, taught = last.get('refitted') or {}, last.get('taught') or {}
        minutes = sum(each['cpu_seconds'] for each in stages) / 60 if stages else None
        steps = sum(each['steps'] for each in stages) if stages else None
        changed = found['change'].strip('{}').replace('"', '')
        rows.append(
            (found['study'], found['share'], found['recipe'] if stages else 'the parent', changed,
             minutes, steps, refitted.get('error'), refitted.get('agreement'), refitted.get('ap50'),
             taught.get('agreement'), taught.get('ap50'), found['ap50'],
             found.get(LABELS[0]), found.get(LABELS[1]), found.get('note'))
        )  # fmt: skip
    return Table.under(header, rows).to_markdown()


def main() -> None:
    """Run one study and add its line to the results, or print them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('study', choices=['warehouse', 'coco', *DETECTORS, 'table'])
    parser.add_argument('data', type=Path, nargs='?')
    parser.add_argument('--macs', type=float, default=0.5, metavar='SHARE')
    parser.add_argument('--table', type=Path, help='of `profile PARENT`: a budget in time by it')
    parser.add_argument('--speedup', type=float, default=1.5, metavar='X', help='by the table')
    parser.add_argument('--minutes', type=float, default=0, help='of teaching; 0: none')
    parser.add_argument('--recipe', default='standard', choices=list(RECIPES))
    parser.add_argument('--change', default='{}', help='fields of the recipe, as JSON')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--folder', type=Path, help='of the work and the bundle')
    parser.add_argument('--results', type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.study == 'table':
        print(table(args.results))
        return
    if args.data is None or args.folder is None:
        parser.error('DATA and --folder are needed')
    use_one_thread()
    names = ('study', 'minutes', 'recipe', 'change', 'seed')
    asked = {**{name: getattr(args, name) for name in names}, 'share': args.macs}
    if args.table is not None:
        asked['speedup'] = args.speedup
    line = json.dumps({**asked, **study(args)})
    print(line)
    args.results.parent.mkdir(exist_ok=True)
    with args.results.open('a', encoding='utf-8') as file:
        file.write(line + '\n')


if __name__ == '__main__':
    main()
