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


"""What people type wrongly, and what they are told: command lines, beside the words that must come.

`{place}` is a folder made by `make_place`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
from tiny_detector import square_image

from pruned_perception.bundle import Bundle

TASK = """
import torch
from pruned_perception.training import Task


def task():
    return 7


def bare():
    images = torch.randn(64, 3, 8, 8)
    return Task(torch.nn.Conv2d(3, 4, 3).eval(), (images[:1],), [images])
"""
STUDY = """
task: wrong_task:missing
methods: {a: {criterion: filter_l2}}
budgets: {macs: [0.5]}
seeds: [0]
"""

# Command line → words that name the thing, and the way out.
WRONG: dict[str, tuple[str, ...]] = {
    # commands and options
    'detct {place}/one.png': ("no command 'detct'", 'did you mean detect'),
    'frobnicate': ("no command 'frobnicate'", '--help'),
    'detect {place}/one.png --model {place}/bundle --treshold 0.5': ('--treshold', '--help'),
    'detect {place}/one.png': ('--model', 'required'),
    'bundle': ('ACTION', '--help'),
    'benchmark speed': ("no benchmark 'speed'", 'engine'),
    # numbers
    'demo --seconds 0': ('--seconds', 'above 0'),
    'demo --seconds -5': ('--seconds', 'above 0'),
    'demo --seconds 1': ('--seconds 1', '3 s at least'),
    'demo --seconds soon': ('--seconds', "'soon' is no number"),
    'monitor --duration -1': ('--duration', 'above 0'),
    'monitor --interval 0': ('--interval', 'above 0'),
    'record /a -o {place}/new --duration 0': ('--duration', 'above 0'),
    'play {place}/bag --rate 0': ('--rate', 'above 0'),
    'benchmark overhead --frames 60': ('--frames 60', 'warm-up', '--frames 70'),
    'benchmark watch --frames 60': ('--frames 60', 'warm-up'),
    'benchmark overhead --rate 0': ('--rate', 'above 0'),
    'benchmark overhead --threads 0': ('--threads', 'less than 1'),
    'benchmark node --rate fast': ('--rate', 'rates are numbers'),
    'benchmark node --seconds 0': ('--seconds', 'above 0'),
    'benchmark contract --budget -30': ('--budget', 'above 0'),
    'benchmark soak --minutes 0': ('--minutes', 'above 0'),
    'benchmark engine {place}/bundle --rounds 1': ('--rounds', 'less than 2'),
    'detect {place}/one.png --model {place}/bundle --score-threshold 50': (
        '--score-threshold', '0 … 1',
    ),
    'detect {place}/one.png --model {place}/bundle --threads 0': ('--threads', 'less than 1'),
    'simulate --split train --frames 0 --out {place}/new': ('--frames', 'less than 1'),
    'simulate --split tset --frames 9 --out {place}/new': ('--split', "'test'"),
    'evaluate {place} --model {place}/bundle --threads 0': ('--threads', 'less than 1'),
    'predict {place}/text.txt --delta 1': ('--delta', 'between 0 and 1'),
    'bundle create {place}/net.onnx {place}/new --pad-value 300': ('--pad-value', 'more than 255'),
    'bundle create {place}/net.onnx {place}/new --size 0 32': ('--size', 'less than 1'),
    # names of topics
    'record /bad?topic -o {place}/new': ("'/bad?topic'", 'no name of a topic'),
    'record front//image -o {place}/new': ("'front//image'", 'single slashes'),
    'monitor /a//b': ("'/a//b'", 'no namespace'),
    'monitor 1st': ("'1st'", 'digit'),
    'up perception namespace:=/a//b': ('namespace:=/a//b', 'single slashes'),
    'up perception image:=/1st/image': ('image:=/1st/image', 'no name of a topic'),
    'play {place}/bag --remap /a:=/b//c': ('--remap', "'/b//c'"),
    'benchmark node --source topic:/a//b --rounds 1': ('--source', "'/a//b'"),
    'detect --topic /a//b --model {place}/bundle': ('--topic', "'/a//b'"),
    # sources and models
    'detect --model {place}/bundle': ('give a source', '--topic NAME'),
    'detect {place}/one.png --model {place}/bundle --video out.gif': ('out.gif', '.mp4'),
    'detect /dev/video177 --model {place}/bundle': ('/dev/video177', 'no such camera'),
    'bundle create {place}/net.onnx {place}/new --image {place}/empty': ('empty',),
    'view /a//b': ("'/a//b'", 'no namespace'),
    'view --port 99999': ('--port', 'more than 65535'),
    'detect {place}/nowhere.png --model {place}/bundle': ('nowhere.png',),
    'detect {place}/empty --model {place}/bundle': ('empty',),
    'detect {place}/text.txt --model {place}/bundle': ('text.txt',),
    'detect {place}/one.png --model {place}/nowhere': ('nowhere',),
    'detect {place}/one.png --model {place}/net.onnx': ('net.onnx', 'bundle create'),
    'detect {place}/one.png --model {place}/text.txt': ('text.txt',),
    'detect {place}/one.png --model package://nowhere/models/x': ("package 'nowhere'",),
    'detect {place}/one.png --model {place}/bundle --member tenth': ('tenth',),
    'detect {place}/pictures --model {place}/bundle --annotate {place}/pictures/out': (
        '--annotate', 'another folder',
    ),
    'demo --model {place}/family': ('--model', 'person, box', 'benchmark node'),
    'demo --model {place}/bundle': ('bundle',),
    'bundle show {place}/pictures': ('pictures',),
    'bundle verify {place}/nowhere': ('nowhere',),
    'bundle create {place}/nowhere.onnx {place}/new': ('nowhere.onnx', 'No such file'),
    'bundle create {place}/text.txt {place}/new': ('text.txt', 'not an ONNX file'),
    'bundle create {place}/net.onnx {place}/pictures --labels {place}/labels.txt': (
        'pictures', 'other files', 'new folder',
    ),
    'bundle create {place}/net.onnx {place}/bundle --labels {place}/labels.txt': (
        'a bundle is there', '--force',
    ),
    'bundle create {place}/net.onnx {place}/new --labels {place}/nowhere.txt': ('nowhere.txt',),
    'bundle create {place}/net.onnx {place}/new --decoder yolo': ('--decoder', 'yolov8'),
    'up perceptoin': ('perceptoin', 'perception'),
    'up perception image=/camera/image_raw': ('image=/camera/image_raw', ':='),
    'up perception modell:=x': ('modell', 'model'),
    'report {place}/empty': ('empty',),
    'play {place}/empty': ('empty',),
    'data check {place}/empty': ('empty',),
    'evaluate {place}/pictures --model {place}/bundle': ('pictures', 'data set'),
    'evaluate {place}/pictures --model {place}/bundle --by size': ("'size' is no axis", 'height'),
    'evaluate {place}/pictures --model {place}/bundle --by height=9,3': ('height=9,3', 'that rise'),
    'evaluate {place}/pictures --model {place}/bundle --classes red': ('--classes', '--by'),
    'evaluate {place}/pictures --model warehose': ('warehose', 'no family of that name'),
    'gallery {place}/pictures --model {place}/bundle --out {place}/x.gif': ('x.gif', '.html'),
    'gallery {place}/pictures --model {place}/bundle --out {place}/x.html': (
        'pictures', 'data set',
    ),
    'up perception model:=warehose': ('model:=warehose', 'there are', 'warehouse'),
    'benchmark node --source images:{place}/empty --rounds 1': ('empty',),
    'benchmark node --source camera --rounds 1': ("'camera'", 'topic:NAME'),
    # places that cannot be written
    'benchmark overhead --output {place}': ('is a folder',),
    'predict {place}/text.txt --out {place}/text.txt/curve.json': ('text.txt', 'no folder'),
}  # fmt: skip

# Those that need the extra 'train'.
WRONG_OFF_LINE: dict[str, tuple[str, ...]] = {
    'prune {place}/net.onnx --out {place}/small.pt': ('--macs', '--params'),
    'prune {place}/net.onnx --macs 0.5 --params 0.5 --out {place}/small.pt': ('exactly one',),
    'prune {place}/net.onnx --macs 0.5 --out {place}/small.json': ('small.json', '.pt'),
    'prune {place}/text.txt --macs 0.5 --out {place}/small.pt': ('text.txt', 'not a checkpoint'),
    'prune {place}/nowhere.pt --macs 0.5 --out {place}/small.pt': ('nowhere.pt', 'no such'),
    'prune --macs 0.5 --out {place}/small.pt': ('a checkpoint or --task',),
    'prune --task wrong_task --macs 0.5 --out {place}/small.pt': ('package.module:function',),
    'prune --task nowhere:task --macs 0.5 --out {place}/small.pt': ('nowhere:task', 'imported'),
    'prune --task wrong_task:task --macs 0.5 --out {place}/small.pt': ('int', 'not a Task'),
    'prune --task wrong_task:bare --weights {place}/text.txt --macs 0.5 --out {place}/small.pt': (
        'text.txt', 'state dict',
    ),
    'prune --task wrong_task:bare --macs 0.5 --out {place}/small.pt': (
        'nothing in it can be pruned',
    ),
    'sensitivity --task wrong_task:bare --out {place}/s.json': ('nothing in it can be pruned',),
    'prune {place}/net.onnx --macs 0.5 --criterion l2 --out {place}/small.pt': ('l2', 'filter_l2'),
    'sensitivity {place}/text.txt --out {place}/s.json': ('text.txt', 'not a checkpoint'),
    'predict {place}/text.txt': ('text.txt',),
    'predict {place}/nowhere.json': ('nowhere.json',),
    'compare {place}/nowhere.yaml': ('nowhere.yaml', 'cannot be read'),
    'compare {place}/study.yaml': ('wrong_task:missing', 'cannot be imported'),
    'compare {place}/text.txt': ('text.txt',),
    'export {place}/text.txt --out {place}/new --compare-on {place}/pictures': ('text.txt',),
    'export --out {place}/new': ('a checkpoint, or --task',),
    'export --task wrong_task:bare --out {place}/new': ('--labels',),
    'finetune {place}/text.txt --out {place}/tuned.pt --steps 3 --train x --validation y': (
        'text.txt',
    ),
    'train {place}/text.txt': ('text.txt',),
    'quantize {place}/bundle --images {place}/nowhere --out {place}/new': ('nowhere',),
    'certify --parent {place}/nowhere --child {place}/bundle --holdout {place}/pictures': (
        'nowhere',
    ),
    'certify --parent {place}/bundle --holdout {place}/pictures': ('--child',),
}  # fmt: skip


def make_place(folder: Path, bundle: Bundle, family: Path) -> Path:
    """Fill the folder with what the command lines mention."""
    for name in ('empty', 'pictures'):
        (folder / name).mkdir()
    for path in (folder / 'one.png', folder / 'pictures' / 'one.png'):
        path.write_bytes(
            cv2.imencode('.png', square_image('red', left=200, top=160, side=120)[..., ::-1])[
                1
            ].tobytes()
        )
    (folder / 'text.txt').write_text('It was a dark and stormy night.\n')
    (folder / 'labels.txt').write_text('red\ngreen\nblue\n')
    (folder / 'wrong_task.py').write_text(TASK)
    (folder / 'study.yaml').write_text(STUDY)
    shutil.copytree(bundle.path, folder / 'bundle')
    shutil.copytree(family, folder / 'family')
    shutil.copy(bundle.onnx_path, folder / 'net.onnx')
    return folder
