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

"""What the commands of README and docs are given, under the names that these use: tiny, but real.

The networks find squares of a pure colour, as the tiny detector does; the pages' own scripts are
taken from the pages.
"""

from __future__ import annotations

import array
import math
import re
import shutil
import types
from collections.abc import Callable
from pathlib import Path

import cv2
import torch
from coco_files import write_set
from documented_commands import ROOT
from tiny_detector import HEIGHT, LABELS, SIDE, STRIDE, WIDTH
from torch import Tensor, nn
from wide_detector import write_squares, write_wide_bundle

from pruned_perception.training.exporting import onnx_bytes


class Squares(nn.Module):
    """Scores (n, 3, cells) of red, green and blue squares, by more channels than it takes."""

    def __init__(self, white: float) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(SIDE, STRIDE, STRIDE)
        self.first, self.last = nn.Conv2d(3, 14, 1), nn.Conv2d(14, 3, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self.first.weight[6:] = 0.01 * torch.rand(8, 3, 1, 1)
            for channel in range(6):
                self.first.weight[channel, channel // 2] = 255 / white
                self.last.weight[:, channel] = -0.25 / 32
                self.last.weight[channel // 2, channel] = 0.5 / 32
            self.last.bias[:] = -4.0

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.first(self.pool(image)).relu()).sigmoid().flatten(2)


class YoloV8(nn.Module):
    """RGB from 0 to 1 → (1, 4 + 3, cells): boxes in pixels and scores, as of YOLOv8's export."""

    def __init__(self, height: int = HEIGHT, width: int = WIDTH) -> None:
        super().__init__()
        self.scores = Squares(white=1.0)
        y, x = torch.meshgrid(
            torch.arange(STRIDE / 2, height, STRIDE),
            torch.arange(STRIDE / 2, width, STRIDE),
            indexing='ij',
        )
        side = torch.full_like(x, SIDE)
        self.register_buffer('boxes', torch.stack((x, y, side, side)).flatten(1)[None])

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat((self.boxes.expand(len(image), -1, -1), self.scores(image)), 1)


class YoloX(nn.Module):
    """BGR from 0 to 255 → (1, cells of three strides, 5 + 3), as YOLOX's export has it."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = Squares(white=255.0)
        cells = [(HEIGHT // stride) * (WIDTH // stride) for stride in (8, 16, 32)]
        size = math.log(SIDE / STRIDE)
        box = torch.tensor([0.5, 0.5, size, size, 1.0]).expand(1, cells[0], 5)
        self.register_buffer('boxes', box.clone())
        self.register_buffer('nothing', torch.zeros(1, sum(cells[1:]), 8))

    def forward(self, image: Tensor) -> Tensor:
        scores = self.scores(image).flip(1).transpose(1, 2)
        found = torch.cat((self.boxes.expand(len(image), -1, -1), scores), 2)
        return torch.cat((found, self.nothing.expand(len(image), -1, -1)), 1)


def onnx_of(network: nn.Module) -> bytes:
    torch.manual_seed(0)
    return onnx_bytes(network.eval(), (torch.zeros(1, 3, HEIGHT, WIDTH),), ['images'], ['output0'])


def images(folder: Path) -> None:
    """Write a detector, its labels, drives, and annotated pictures."""
    (folder / 'detector.onnx').write_bytes(onnx_of(YoloV8()))
    (folder / 'labels.txt').write_text('\n'.join(LABELS))
    for seed, drive in enumerate(('monday', 'tuesday', 'wednesday')):
        write_squares(folder / 'drives' / drive, 12, seed=seed)
    shutil.copy(folder / 'drives' / 'monday' / '000.png', folder / 'picture.jpg')
    write_set(folder / 'my_set' / 'test')


def with_family(folder: Path) -> None:
    """Write a family of one member, and shipped ones."""
    write_wide_bundle(folder / 'my_family' / 'dense')
    (folder / 'models').symlink_to(ROOT / 'models')


def pytorch(folder: Path) -> None:
    """Write the page's task, with a stand-in for Ultralytics' package, and pictures."""
    page = (ROOT / 'docs' / 'start.md').read_text(encoding='utf-8')
    (script,) = re.findall(r'^```python\n(# yolo_task.py\n.*?)^```$', page, re.M | re.S)
    (folder / 'yolo_task.py').write_text(script, encoding='utf-8')
    (folder / 'coco.names').write_text('\n'.join(LABELS))
    write_squares(folder / 'pictures', 6)
    for picture in (folder / 'pictures').iterdir():
        cv2.imwrite(str(picture.with_suffix('.jpg')), cv2.imread(str(picture)))


def ultralytics() -> types.ModuleType:
    """Return the stand-in: what the page's task asks of it."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.ModuleList([YoloV8(640, 640)])

        def forward(self, image: Tensor) -> Tensor:
            head = self.model[-1]
            assert (head.export, head.format) == (True, 'onnx')  # or it would return more
            return head(image)

    module = types.ModuleType('ultralytics')
    module.YOLO = lambda name: types.SimpleNamespace(model=Model())  # type: ignore[attr-defined]
    return module


def step_by_step(folder: Path) -> None:
    """Write an ONNX file as YOLOX's authors publish it, and a drive."""
    (folder / 'yolox_nano.onnx').write_bytes(onnx_of(YoloX()))
    (folder / 'coco.names').write_text('\n'.join(LABELS))
    write_squares(folder / 'pictures', 40)
    write_bag(folder / 'drive.mcap', folder / 'pictures')


def bundles(folder: Path) -> None:
    """Write ONNX files, pictures, and models in a folder of that name."""
    step_by_step(folder)
    (folder / 'small.onnx').write_bytes(onnx_of(YoloV8()))
    write_wide_bundle(folder / 'models' / 'my_family' / 'dense')
    (folder / 'models' / 'warehouse').symlink_to(ROOT / 'models' / 'warehouse')


def shipped(folder: Path) -> None:
    """Give the shipped models, and data sets where the page has them."""
    from pruned_perception.cli.main import main

    (folder / 'models').symlink_to(ROOT / 'models')
    for split, frames in (('train', '24'), ('test', '4')):
        where = str(folder / 'DATA' / split)
        assert main(['simulate', '--split', split, '--frames', frames, '--out', where]) == 0


def simulation(folder: Path) -> None:
    """Give the shipped models; where the shipped detectors' data lie is the set that is made."""
    (folder / 'models').symlink_to(ROOT / 'models')
    (folder / 'worlds').mkdir()
    cache = folder / '.cache' / 'pruned_perception' / 'warehouse'
    cache.mkdir(parents=True)
    (cache / 'test').symlink_to(folder / 'data' / 'test')


def checkout(folder: Path) -> None:
    """Give what a checkout has."""
    for name in ('config', 'studies', 'models'):
        (folder / name).symlink_to(ROOT / name)


def write_bag(file: Path, pictures: Path) -> None:
    """Write pictures as a bag of one file."""
    from builtin_interfaces.msg import Time
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from pruned_perception.benchmark.bag import BagWriter

    folder = file.with_suffix('')
    with BagWriter(folder) as writer:
        writer.add_topic('/camera/image_raw', Image)
        for index, picture in enumerate(sorted(pictures.iterdir())):
            pixels = cv2.imread(str(picture))
            height, width = pixels.shape[:2]
            image = Image(height=height, width=width, encoding='bgr8', step=3 * width)
            image.header = Header(stamp=Time(sec=1_700_000_000 + index), frame_id='camera')
            image.data = array.array('B', pixels.tobytes())
            stamp = (1_700_000_000 + index) * 10**9
            writer.write('/camera/image_raw', serialize_message(image), stamp)
    (written,) = folder.glob('*.mcap')
    written.rename(file)
    shutil.rmtree(folder)


PREPARED: dict[str, Callable[[Path], object]] = {
    'images': images,
    'onnx': images,
    'optimize': images,
    'pytorch': pytorch,
    'onnx step by step': step_by_step,
    'bundles': bundles,
    'simulation': simulation,
    'profile': with_family,
    'live': with_family,
    'bags': with_family,
    'benchmarks': with_family,
    'shipped': shipped,
    'files': checkout,
}
