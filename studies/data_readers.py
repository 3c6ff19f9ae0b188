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

"""What well-known readers of annotated data make of one box, written in eleven ways, sound or not.

    pip install supervision globox pylabel datumaro     # any of them, in an environment of its own
    python -m studies.data_readers

The picture has 200 × 100 pixels. Boxes are printed as left, top, right, bottom; an error by its
name. Readers that are not installed are left out.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pruned_perception._tables import Table
from pruned_perception.datasets import read_dataset

LINES = {
    'box': '0 .5 .5 .2 .4',
    'polygon, 3 corners': '0 .1 .1 .9 .2 .5 .8',
    'polygon, 4 corners': '0 .1 .1 .9 .1 .9 .8 .1 .8',
    'box and polygon': '0 .5 .5 .2 .4\n1 .1 .1 .9 .2 .5 .8',
    'box and score': '0 .5 .5 .2 .4 .9',
    'pixels': '0 100 50 40 40',
    'not a number': '0 nan .5 .2 .4',
    'text': '0 .5 x .2 .4',
    'no area': '0 .5 .5 0 .4',
    'outside': '0 .9 .5 .6 .4',
    'unknown class': '7 .5 .5 .2 .4',
}
NAMES = ('a', 'b')
Boxes = list[list[float]]


def ours(folder: Path) -> Boxes:
    """Read with this project's reader."""
    return read_dataset(folder / 'data.yaml').boxes[0].tolist()


def supervision(folder: Path) -> Boxes:
    """Read with supervision, MIT."""
    import supervision as sv

    found = sv.DetectionDataset.from_yolo(
        images_directory_path=str(folder / 'images'),
        annotations_directory_path=str(folder / 'labels'),
        data_yaml_path=str(folder / 'data.yaml'),
    )
    return [list(box) for _, _, each in found for box in each.xyxy]


def globox(folder: Path) -> Boxes:
    """Read with globox, MIT."""
    from globox import AnnotationSet

    found = AnnotationSet.from_yolo_v5(
        folder=folder / 'labels', image_folder=folder / 'images', image_extension='.png'
    )
    return [[b.xmin, b.ymin, b.xmax, b.ymax] for each in found for b in each.boxes]


def pylabel(folder: Path) -> Boxes:
    """Read with pylabel, MIT."""
    from pylabel import importer

    found = importer.ImportYoloV5(
        path=str(folder / 'labels'), path_to_images='../images', cat_names=list(NAMES)
    )
    sides = ['ann_bbox_xmin', 'ann_bbox_ymin', 'ann_bbox_xmax', 'ann_bbox_ymax']
    return found.df[sides].values.tolist()


def datumaro(folder: Path) -> Boxes:
    """Read with Datumaro, MIT."""
    from datumaro.components.dataset import Dataset

    for part, name in (('images', '0.png'), ('labels', '0.txt')):
        (folder / 'again' / part / 'train').mkdir(parents=True)
        shutil.copy(folder / part / name, folder / 'again' / part / 'train')
    splits = ''.join(f'{split}: images/train\n' for split in ('train', 'val', 'test'))
    text = f'{splits}names: {dict(enumerate(NAMES))}\n'
    (folder / 'again' / 'data.yaml').write_text(text)
    found = Dataset.import_from(str(folder / 'again'), 'yolo')
    boxes = [mark.get_bbox() for each in found for mark in each.annotations]
    return [[x, y, x + width, y + height] for x, y, width, height in boxes]


READERS: tuple[Callable[[Path], Boxes], ...] = (ours, supervision, datumaro, globox, pylabel)


def answer(reader: Callable[[Path], Boxes], line: str) -> str:
    """Return what a reader makes of a file of labels."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / 'set'
        for part in ('images', 'labels'):
            (folder / part).mkdir(parents=True)
        cv2.imwrite(str(folder / 'images' / '0.png'), np.zeros((100, 200, 3), np.uint8))
        (folder / 'labels' / '0.txt').write_text(line + '\n')
        (folder / 'data.yaml').write_text(f'train: images\nnames: [{", ".join(NAMES)}]\n')
        try:
            return '; '.join(' '.join(map(_short, box)) for box in reader(folder)) or 'nothing'
        except Exception as error:  # what others raise is what is asked
            return f'refused ({type(error).__name__})'


def _short(value: Any) -> str:
    return f'{value:.0f}' if isinstance(value, float | int | np.number) else repr(value)


def main() -> None:
    """Print the table."""
    there = [
        each
        for each in READERS
        if each is ours or importlib.util.find_spec(each.__name__) is not None
    ]
    rows = [(name, *(answer(each, line) for each in there)) for name, line in LINES.items()]
    header = ' | '.join(['written', *(each.__name__ for each in there)])
    print(Table.under(header, rows).to_markdown())


if __name__ == '__main__':
    main()
