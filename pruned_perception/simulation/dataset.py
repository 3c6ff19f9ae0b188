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

"""COCO data sets of random views of random halls: reproducible from a seed, resumable.

On disk: `images/000000.png` …, `annotations.json` (COCO; category ids are class ids; `layout` of
an image is the number of its hall, `visible` of an annotation the share of the object that shows;
objects too small or too hidden are `iscrowd`), `dataset.json` (how it was made, and a hash).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception._io import locked, replacing
from pruned_perception.datasets.formats import coco
from pruned_perception.errors import UserError
from pruned_perception.simulation import warehouse
from pruned_perception.simulation.ground_truth import BoxFinder, VisibleObject
from pruned_perception.simulation.randomise import ViewMaker
from pruned_perception.simulation.renderer import Renderer
from pruned_perception.simulation.scene import LABELS
from pruned_perception.simulation.splits import Split, split_named

# Part of a data set's identity: raise it with every change of what is drawn or annotated.
GENERATOR_VERSION = 1
FRAMES_PER_LAYOUT = 20
DARKEST = 14.0  # mean pixel value; darker frames are drawn again,
DARK_TRIES = 20  # so many times
SAVE_EVERY = 20.0  # seconds between savings of the annotations
SIZE_BINS = (0, 16, 32, 48, 96, 192, 1000)  # pixels, longer side of a box

Annotations = dict[str, Any]


@dataclass(frozen=True)
class DatasetSpec:
    """What identifies a data set: split, seed and number of frames."""

    split: str
    seed: int
    frames: int

    def __post_init__(self) -> None:
        split_named(self.split)
        if self.frames < 1:
            raise UserError(f'frames is {self.frames}; at least 1 is needed')
        if self.seed < 0:
            raise UserError(f'seed is {self.seed}; it must not be negative')


def generate(
    spec: DatasetSpec, out: Path, progress: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Generate a data set, or what is missing of it, and return the content of `dataset.json`.

    The first frames of a longer data set are those of a shorter one, so that a finished one can
    be extended. `progress` is called with the number of frames that are done.

    Raises
    ------
    UserError
        If the folder cannot be written, holds another data set, or is being written by another
        process; if MuJoCo or an OpenGL driver is missing.
    """
    with _errors_of(out), locked(out):
        done = _resume(spec, out)
        (out / 'images').mkdir(exist_ok=True)
        _write_json(out / 'dataset.json', {**_identity(spec), 'complete': False})
        saved = time.monotonic()
        try:
            while len(done['images']) < spec.frames:
                _generate_layout(spec, out, done)
                if progress is not None:
                    progress(len(done['images']))
                if time.monotonic() - saved > SAVE_EVERY:
                    _write_json(out / 'annotations.json', done)
                    saved = time.monotonic()
        finally:
            _write_json(out / 'annotations.json', done)
        summary = {
            **_identity(spec),
            'complete': True,
            'boxes': summarise(done),
            'sha256': content_hash(out),
        }
        _write_json(out / 'dataset.json', summary)
    return summary


def frames(
    split: Split, seed: int, layout: int, count: int = FRAMES_PER_LAYOUT
) -> Iterator[tuple[NDArray[np.uint8], list[VisibleObject]]]:
    """Yield the images, RGB uint8 (480, 640, 3), and visible objects of one random hall."""
    scene = warehouse.build(split, seed, layout)
    views = ViewMaker(scene, split)
    finder = BoxFinder(scene.objects)
    rng = split.rng(seed, layout, 1)
    with contextlib.closing(Renderer(scene)) as renderer:
        for _ in range(count):
            view = views.draw(rng)
            image = renderer.show(view)
            for _ in range(DARK_TRIES):
                if image.mean() >= DARKEST:
                    break
                view = views.draw(rng)
                image = renderer.show(view)
            numbers = renderer.object_numbers()
            yield image, finder.find(numbers, view.camera, view.eye, view.poses)


def summarise(annotations: Annotations) -> dict[str, Any]:
    """Return the counts of boxes: in all, per label, per longer side (crowd boxes apart)."""
    boxes = [item for item in annotations['annotations'] if not item['iscrowd']]
    sides = np.array([max(item['bbox'][2:]) for item in boxes])
    counts, _ = np.histogram(sides, SIZE_BINS)
    per_label = Counter(item['category_id'] for item in boxes)
    return {
        'count': len(boxes),
        'crowd': len(annotations['annotations']) - len(boxes),
        'per_label': {label: per_label[index] for index, label in enumerate(LABELS)},
        'per_size': {
            f'{low}-{high}': int(count)
            for low, high, count in zip(SIZE_BINS[:-1], SIZE_BINS[1:], counts, strict=True)
        },
        'below_48_px': round(float(np.mean(sides < 48)), 4) if boxes else 0.0,
    }


def content_hash(out: Path) -> str:
    """Return the SHA-256 over the annotations and all images that they name, in their order."""
    text, annotations = coco.load(out / 'annotations.json')
    digest = hashlib.sha256(text)
    for image in annotations['images']:
        digest.update(hashlib.sha256((out / 'images' / image['file_name']).read_bytes()).digest())
    return digest.hexdigest()


def _identity(spec: DatasetSpec) -> dict[str, Any]:
    return {
        'generator': 'pruned_perception.simulation',
        'generator_version': GENERATOR_VERSION,
        'split': spec.split,
        'seed': spec.seed,
        'frames': spec.frames,
        'labels': list(LABELS),
    }


def _empty() -> Annotations:
    return {
        'info': {'description': 'Simulated warehouse', 'version': str(GENERATOR_VERSION)},
        'categories': [{'id': index, 'name': label} for index, label in enumerate(LABELS)],
        'images': [],
        'annotations': [],
    }


def _resume(spec: DatasetSpec, out: Path) -> Annotations:
    """Return the annotations that a former run has left, cut back to whole layouts."""
    described, annotated = out / 'dataset.json', out / 'annotations.json'
    if not (described.exists() and annotated.exists()):
        if not described.exists() and (out / 'images').exists():
            raise UserError(
                f'{out} has a folder `images` that no data set describes; choose an empty folder'
            )
        return _empty()
    try:
        found = json.loads(described.read_text())
        _, done = coco.load(annotated)
    except ValueError as error:
        raise UserError(f'{out}: the data set in it cannot be read ({error}); remove it') from error
    wanted = _identity(spec)
    for key in ('generator', 'generator_version', 'split', 'seed'):
        if found.get(key) != wanted[key]:
            raise UserError(
                f'{out} holds another data set ({key} {found.get(key)!r}, asked for '
                f'{wanted[key]!r}); choose another folder or remove it'
            )
    if found.get('frames', 0) > spec.frames:
        raise UserError(
            f'{out} holds {found["frames"]} frames, more than the {spec.frames} asked for; '
            'choose another folder or remove it'
        )
    count = len(done['images'])
    if count < spec.frames:
        count -= count % FRAMES_PER_LAYOUT
    done['images'] = done['images'][:count]
    done['annotations'] = [item for item in done['annotations'] if item['image_id'] < count]
    return dict(done)


def _generate_layout(spec: DatasetSpec, out: Path, done: Annotations) -> None:
    """Append the next layout's frames to the annotations, after writing their images."""
    split = split_named(spec.split)
    start = len(done['images'])
    layout = start // FRAMES_PER_LAYOUT
    count = min(FRAMES_PER_LAYOUT, spec.frames - start)
    images, annotations = [], []
    identifier = len(done['annotations'])
    for index, (image, objects) in enumerate(frames(split, spec.seed, layout, count), start=start):
        name = f'{index:06d}.png'
        _write_png(out / 'images' / name, image)
        height, width = image.shape[:2]
        images.append(
            {'id': index, 'file_name': name, 'width': width, 'height': height, 'layout': layout}
        )
        for item in objects:
            identifier += 1  # from 1: pycocotools takes 0 for "no match"
            annotations.append(
                {
                    'id': identifier,
                    'image_id': index,
                    'category_id': item.class_id,
                    'bbox': list(item.box),
                    'area': item.box[2] * item.box[3],
                    'iscrowd': int(not item.counts),
                    'visible': item.visible,
                }
            )
    done['images'] += images
    done['annotations'] += annotations


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    if hasattr(cv2, 'IMWRITE_PNG_FILTER'):  # OpenCV 4.12; without a filter it takes half the time
        options += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    encoded = cv2.imencode('.png', image[..., ::-1], options)[1]
    path.write_bytes(encoded.tobytes())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content))


@contextlib.contextmanager
def _errors_of(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f'cannot write the data set to {out}: {error.strerror or error}; '
            'choose a folder that is writable and has room'
        ) from error
