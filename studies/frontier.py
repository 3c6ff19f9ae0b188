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

"""The accuracy-latency frontier of a family, with what competes with pruning, as a picture.

    python -m studies.frontier models/warehouse --dataset TEST --calibration VALIDATION \
        --detectors DETECTORS --results FILE --plot docs/frontier.svg

Members, in float and in 8 bits; the dense one at lower resolutions, in float and in 8 bits;
YOLOX-nano, NanoDet-m and FastestDet (`--detectors`, of COCO). All run by turns in one session, one
thread. AP50 is on TEST, of all classes; the public detectors know some of them alone, so that
theirs is of these, beside the family's of the same. A member's accuracy is that of its manifest
where that was measured on TEST. VALIDATION calibrates what is quantised here. FILE keeps what is
done; where it is there, only what is missing is done, and without `--dataset` nothing is but the
picture. `--cpu-time` measures CPU time, on a machine with other work.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pruned_perception._io import read_json, write_json
from pruned_perception._plots import literal, matplotlib
from pruned_perception._tables import Table
from pruned_perception.benchmark.engine import compare, measure, of_bundle, open_sessions
from pruned_perception.bundle import Bundle, load_bundle, load_family, write_bundle
from pruned_perception.cli.quantize import frames_of
from pruned_perception.datasets import read_dataset, read_labels
from pruned_perception.inference.coco_metrics import Boxes, coco_metrics
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.detector import Detector
from pruned_perception.inference.new_bundle import create_bundle
from pruned_perception.inference.processor import integer_arithmetic, processor_name
from pruned_perception.quantization import quantize_bundle

MIN_SCORE = 0.01
SIZES = ((224, 288), (192, 256), (128, 160))
"""Of the dense one at lower resolutions: multiples of 32."""
PUBLIC: dict[str, tuple[str, dict[str, Any]]] = {
    'YOLOX-nano': ('yolox_nano/yolox_nano.onnx', {'decoder': 'yolox'}),
    'NanoDet-m': (
        'nanodet_m/nanodet_m_320.onnx',
        {
            'decoder': 'nanodet',
            'outputs': [f'{kind}_pred_stride_{s}' for kind in ('cls', 'dis') for s in (8, 16, 32)],
        },
    ),
    'FastestDet': ('fastestdet/FastestDet.onnx', {'decoder': 'fastestdet'}),
}
"""Name → file below the detectors' folder, and how it is read."""
FLOAT, INT8, SMALLER, SMALLER_INT8, OTHERS = KINDS = (
    'member', 'member in 8 bits', 'dense at a lower resolution', 'the same in 8 bits', 'public',
)  # fmt: skip
STYLES = ('o#0072b2', 's#d55e00', 'v#009e73', '^#cc79a7', 'D#000000')  # marker and colour
TICKS = (1, 1.5, 2, 3, 4, 6, 10, 15, 20, 30, 60)  # ms
STEP = 1.25
PLACES = ((4, 3), (4, -3), (-4, 3), (-4, -3), (0, 6), (0, -6), (6, 0), (-6, 0))
"""Of names, from their points, in points; the first that is free."""


def main() -> None:
    """Evaluate what was not yet, measure by turns, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('family', type=Path)
    parser.add_argument('--dataset', type=Path, help='annotated, with the labels of the family')
    parser.add_argument('--calibration', type=Path, help='folder of images')
    parser.add_argument('--detectors', type=Path, help='folder of the public detectors')
    parser.add_argument('--work', type=Path, default=Path('frontier'), help='of bundles made here')
    parser.add_argument('--results', type=Path, required=True)
    parser.add_argument('--plot', type=Path, help='SVG or PNG')
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--cpu-time', action='store_true')
    args = parser.parse_args()
    done = read_json(args.results) if args.results.exists() else {'accuracy': {}, 'latency': {}}
    if args.dataset is not None:
        bundles = dict(networks(args))
        for name, (kind, bundle) in bundles.items():
            known = done['accuracy'].get(name)
            if known is None or known['sha256'] != bundle.sha256:
                print(f'{name}: evaluating', flush=True)
                done['accuracy'][name] = {'kind': kind, **accuracy(bundle, args.dataset)}
                write_json(args.results, done)
        done['latency'] = latency([bundle for _, bundle in bundles.values()], list(bundles), args)
        write_json(args.results, done)
    points = of_results(done)
    print(as_text(done, points))
    if args.plot is not None:
        draw(points, args.plot)


def networks(args: argparse.Namespace) -> Iterator[tuple[str, tuple[str, Bundle]]]:
    """Yield name, kind and bundle of all that is compared; make what is not there yet."""
    members = load_family(args.family).members
    for member in members:
        yield member.name, (INT8 if 'quantization' in member.manifest else FLOAT, member)
    frames = frames_of(args.calibration, None, 64, 64)
    for size in SIZES:
        name = f'{members[0].name} {size[0]}×{size[1]}'
        folder = args.work / f'{members[0].name}-{size[0]}'
        if not (folder / 'manifest.json').is_file():
            resized(members[0], size, folder, frames[0])
        yield name, (SMALLER, load_bundle(folder))
        in_8_bits = args.work / f'{folder.name}-int8'
        if not (in_8_bits / 'manifest.json').is_file():
            quantize_bundle(
                load_bundle(folder), frames[0], in_8_bits, held_out=frames[1], float_share=0
            )
        yield f'{name} int8', (SMALLER_INT8, load_bundle(in_8_bits))
    if args.detectors is None:
        return
    labels = read_labels(args.detectors / 'fastestdet' / 'coco.names')
    for name, (file, how) in PUBLIC.items():
        folder, path = args.work / name, args.detectors / file
        if not (folder / 'manifest.json').is_file():
            create_bundle(path, path.read_bytes(), folder, labels=labels, **how)
        yield name, (OTHERS, load_bundle(folder))


def resized(
    bundle: Bundle, size: tuple[int, int], folder: Path, images: Sequence[np.ndarray]
) -> None:
    """Write the bundle of our detector with the same weights and another input size."""
    import cv2
    import torch

    from pruned_perception.pruning import count
    from pruned_perception.training.detector.deployment import folded, undeployed
    from pruned_perception.training.detector.export import to_onnx
    from pruned_perception.training.detector.importing import deployed_from
    from pruned_perception.training.detector.network import ConvBlock

    network = undeployed(deployed_from(bundle)).eval()
    network.input_size = size
    for block in network.modules():
        if isinstance(block, ConvBlock):  # export folds what was folded already
            block.norm = torch.nn.BatchNorm2d(block.conv.out_channels, eps=0.0).eval()
    shown = [cv2.resize(each, size[::-1], interpolation=cv2.INTER_AREA) for each in images[:4]]
    data = to_onnx(network, np.stack(shown)[..., ::-1])
    cost = count(folded(network), (torch.zeros(1, 3, *size),))
    manifest = {
        **{key: value for key, value in bundle.manifest.items() if key != 'onnx'},
        'name': folder.name,
        'input': {**bundle.manifest['input'], 'shape': [1, *size, 3]},
        'cost': {'parameters': cost.parameters, 'macs': cost.macs},
        'parent': {'name': bundle.name, 'sha256': bundle.sha256},
        'evaluation': [],
        'latency': [],
    }
    write_bundle(folder, data, manifest)


def accuracy(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """Return AP50 of each class that the bundle knows, and of all where it knows them."""
    notes = read_dataset(folder)
    for entry in bundle.manifest['evaluation']:
        if entry.get('net') == 'member' and entry['annotations_sha256'] == notes.digest:
            return {
                'sha256': bundle.sha256,
                'ap50': entry['ap50'],
                'interval': entry['ap50_interval'],
                'per_class': {k: each['ap50'] for k, each in entry['per_class'].items()},
            }
    common = [label for label in notes.labels if label in bundle.labels]
    place = {bundle.labels.index(label): common.index(label) for label in common}
    detector = Detector(bundle)
    settings = dataclasses.replace(
        detector.settings, score_threshold=MIN_SCORE, classes=frozenset(place)
    )
    truth, found = [], []
    for image, boxes, ids, crowd in zip(
        notes.images(), notes.boxes, notes.class_ids, notes.crowd, strict=True
    ):
        seen = detector.detect(image, 'bgr', settings)[0]
        ours = np.array([place[k] for k in seen.class_ids.tolist()], np.int64)
        found.append(Detections(seen.boxes, seen.scores, ours))
        known = np.array([notes.labels[k] in common for k in ids.tolist()], bool)
        theirs = np.array([common.index(notes.labels[k]) for k in ids[known].tolist()], np.int64)
        truth.append(Boxes(boxes[known], theirs, crowd[known]))
    whole = len(common) == len(notes.labels)
    metrics = coco_metrics(truth, found, tuple(common), groups=notes.groups, resamples=0)
    return {
        'sha256': bundle.sha256,
        'ap50': metrics.ap50 if whole else None,
        'interval': metrics.ap50_interval,
        'per_class': {name: each.ap50 for name, each in metrics.per_class.items()},
    }


def latency(
    bundles: Sequence[Bundle], names: Sequence[str], args: argparse.Namespace
) -> dict[str, Any]:
    """Return p50 and speed-up of all, measured by turns."""
    every = [of_bundle(each) for each in bundles]
    sessions = open_sessions(every)
    clock = time.process_time_ns if args.cpu_time else time.monotonic_ns
    times = measure(every, rounds=args.rounds, runs=5, clock=clock, sessions=sessions)
    results = compare(every, times, sessions)
    return {
        'processor': f'{processor_name()}, {integer_arithmetic()}',
        'load_average': round(os.getloadavg()[0], 1),
        'clock': 'CPU time' if args.cpu_time else 'wall',
        'networks': {
            name: {
                'ms': each.latency.p50,
                'interval': each.latency.p50_interval,
                'speedup': each.speedup,
                'speedup_interval': each.speedup_interval,
                **(each.execution.to_dict() if each.execution else {}),
            }
            for name, each in zip(names, results, strict=True)
        },
    }


@dataclasses.dataclass(frozen=True)
class Point:
    """A network: p50 in ms with its interval, AP50 of all classes and of those all know."""

    name: str
    kind: str
    ms: float
    ms_interval: tuple[float, float]
    speedup: float
    ap50: float | None
    interval: tuple[float, float] | None
    common: float

    def dominates(self, other: Point) -> bool:
        """Say whether it is as fast and as accurate, and better in one; by point estimates."""
        if self.ap50 is None or other.ap50 is None:
            return False
        mine, theirs = (-self.ms, self.ap50), (-other.ms, other.ap50)
        return mine != theirs and all(a >= b for a, b in zip(mine, theirs, strict=True))


def of_results(done: dict[str, Any]) -> list[Point]:
    """Return the points of a results file, slowest first."""
    classes = common_classes(done)
    points = []
    for name, measured in done['latency']['networks'].items():
        found = done['accuracy'][name]
        points.append(
            Point(
                name,
                found['kind'],
                measured['ms'],
                tuple(measured['interval'] or (measured['ms'],) * 2),
                measured['speedup'],
                found['ap50'],
                None if found['interval'] is None else tuple(found['interval']),
                float(np.mean([found['per_class'][each] for each in classes])),
            )
        )
    return sorted(points, key=lambda each: -each.ms)


def common_classes(done: dict[str, Any]) -> list[str]:
    """Return the classes that all networks know."""
    every = [found['per_class'] for found in done['accuracy'].values()]
    return [name for name in every[0] if all(name in each for each in every)]


def as_text(done: dict[str, Any], points: Sequence[Point]) -> str:
    """Return the table, who is dominated by whom, and the steps along the frontier."""
    conditions = done['latency']
    classes = ', '.join(common_classes(done))
    header = f' | kind | p50 ms:.2f | × faster:.2f | AP50 | 95 % | AP50 of {classes}:.3f'
    rows = [
        (
            each.name,
            each.kind,
            each.ms,
            each.speedup,
            '–' if each.ap50 is None else f'{each.ap50:.3f}',
            '–' if each.interval is None else '{:.3f}–{:.3f}'.format(*each.interval),
            each.common,
        )
        for each in points
    ]
    lines = [
        f'{conditions["processor"]}; load {conditions["load_average"]}, {conditions["clock"]}',
        Table.under(header, rows).to_markdown(),
        '',
    ]
    for each in points:
        better = [other for other in points if other.dominates(each)]
        if better:
            best = max(better, key=lambda other: (other.ap50, -other.ms))
            lines.append(
                f'{each.name} is dominated by {best.name}: AP50 {each.ap50:.3f} in {each.ms:.2f} '
                f'ms, {best.ap50:.3f} in {best.ms:.2f} ms'
            )
    lines.append(f'on the frontier: {", ".join(each.name for each in undominated(points))}')
    for rivals, what in (
        ((FLOAT, SMALLER), 'in float, members'),
        ((FLOAT, SMALLER, INT8, SMALLER_INT8), 'members'),
    ):
        best = undominated([each for each in points if each.kind in rivals])
        chain = steps([each for each in best if each.kind in (FLOAT, INT8)])
        lines.append(
            f'{what} that none dominates, each {STEP} × faster than the one before with intervals '
            f'apart: {len(chain)}: {", ".join(chain)}'
        )
    return '\n'.join(lines)


def undominated(points: Sequence[Point]) -> list[Point]:
    """Return the points whose AP50 is known and that no other of them dominates."""
    return [
        each
        for each in points
        if each.ap50 is not None and not any(other.dominates(each) for other in points)
    ]


def steps(points: Sequence[Point]) -> list[str]:
    """Return the longest chain of points, slowest first, with steps wide and sure enough."""
    chains: list[list[Point]] = []
    for each in sorted(points, key=lambda point: -point.ms):
        before = [
            chain
            for chain in chains
            if chain[-1].ms >= STEP * each.ms and chain[-1].ms_interval[0] > each.ms_interval[1]
        ]
        chains.append([*max(before, key=len, default=[]), each])
    return [each.name for each in max(chains, key=len, default=[])]


def draw(points: Sequence[Point], path: Path) -> None:
    """Write the picture: AP50 of all classes, and of those that all networks know."""
    library = matplotlib()
    styles = dict(zip(KINDS, STYLES, strict=True))
    with library.rc_context({'font.size': 9, 'svg.fonttype': 'none', 'svg.hashsalt': 'frontier'}):
        figure = library.figure.Figure(figsize=(10.5, 6), layout='constrained')
        left, right = figure.subplots(1, 2)
        named = []
        for axis, value, title in (
            (left, lambda each: each.ap50, 'all classes'),
            (right, lambda each: each.common, 'classes that COCO has, too'),
        ):
            shown = [each for each in points if value(each) is not None]
            for kind in KINDS:
                mine = [each for each in shown if each.kind == kind]
                if not mine:
                    continue
                low = [each.ms - each.ms_interval[0] for each in mine]
                high = [each.ms_interval[1] - each.ms for each in mine]
                axis.errorbar(
                    [each.ms for each in mine],
                    [value(each) for each in mine],
                    xerr=[low, high],
                    label=kind,
                    marker=styles[kind][0],
                    color=styles[kind][1:],
                    linestyle='none',
                    markersize=5,
                )
            best = sorted(shown, key=lambda each: each.ms)
            front = [
                each
                for k, each in enumerate(best)
                if all(value(each) > value(other) for other in best[:k])
            ]
            (front_line,) = axis.step(
                [each.ms for each in front],
                [value(each) for each in front],
                where='post',
                color='0.6',
                linewidth=1,
                zorder=0,
            )
            named.append((axis, [(each.name, each.ms, value(each)) for each in shown], front_line))
            axis.set_xscale('log')
            axis.set_xticks(TICKS, map(str, TICKS))
            axis.set_xticks([], minor=True)
            axis.set_xlim(
                min(each.ms for each in shown) / 1.2, max(each.ms for each in shown) * 1.35
            )
            axis.set_xlabel('latency, p50, ms (one thread)')
            axis.set_title(title)
            axis.grid(alpha=0.3)
        left.set_ylabel('AP50')
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc='outside lower center', ncols=len(labels), frameon=False)
        figure.draw_without_rendering()  # the layout, which moves the axes
        for axis, points_named, line in named:
            label(axis, points_named, line)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={'Date': None} if path.suffix == '.svg' else None)


def label(axis: Any, points: Sequence[tuple[str, float, float]], line: Any) -> None:
    """Name points (name, x, y), each where its name lies over least else.

    Of eight places around a point, the first that no other name, point or part of the line is in;
    or the one with least of these.
    """
    from matplotlib.transforms import Bbox

    marks = axis.transData.transform([(x, y) for _, x, y in points])
    path = axis.transData.transform(np.stack(line.get_data(), axis=1))
    corners = np.stack([path[1:, 0], path[:-1, 1]], axis=1)  # of its steps, 'post'
    path = np.concatenate([path[:1], np.stack([corners, path[1:]], axis=1).reshape(-1, 2)])
    share = np.linspace(0, 1, 200)[:, None]
    along = np.concatenate([a + share * (b - a) for a, b in itertools.pairwise(path)])
    taken: list[Bbox] = []
    for (name, x, y), mark in zip(points, marks, strict=True):
        others = marks[(marks != mark).any(1)]
        candidates = []
        for dx, dy in PLACES:
            text = axis.annotate(
                literal(name),
                (x, y),
                xytext=(dx, dy),
                textcoords='offset points',
                ha='left' if dx > 0 else 'right' if dx < 0 else 'center',
                va='bottom' if dy > 0 else 'top' if dy < 0 else 'center',
                fontsize=7,
            )
            box = text.get_window_extent().padded(1)
            inside = axis.get_window_extent()
            over = (
                100.0 * sum(box.overlaps(each) for each in taken)
                + 100.0 * sum(box.padded(4).contains(*each) for each in others)
                + sum(box.contains(*each) for each in along)
                + 1e4 * (not (inside.x0 <= box.x0 and box.x1 <= inside.x1))
            )
            candidates.append((over, text, box))
        _, chosen, box = min(candidates, key=lambda each: each[0])
        taken.append(box)
        for _, text, _ in candidates:
            if text is not chosen:
                text.remove()


if __name__ == '__main__':
    main()
