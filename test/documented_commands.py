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

"""What README and docs tell people to type, and how a test runs it.

Every line of their blocks of code that is a command is in one of three classes: a `Step` of a road,
run as it is written or shortened by what is appended; one that another test runs (`TESTED`); or one
that needs what a test has not (`ELSEWHERE`), with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
OURS = ('pruned-perception ', './dev ', 'pruned_perception/dev ')
SHELL = ('sh', 'bash')


def command_lines(page: Path) -> Iterator[str]:
    """Yield the commands of a page's blocks of code, without prompts and comments."""
    text = page.read_text(encoding='utf-8')
    for language, block in re.findall(r'^```(\w*)\n(.*?)^```$', text, re.M | re.S):
        for line in re.sub(r'\\\n\s*', ' ', block).splitlines():
            words = re.sub(r'^(robot|desk)\$\s+', '', line.strip())
            if not words or words.startswith('#'):
                continue
            if language in SHELL or (not language and words.startswith(OURS)):
                yield plain(words)


def plain(line: str) -> str:
    """Return a command without the comment behind it, and with single spaces."""
    line = re.split(r'\s+# |    +', line.strip())[0] if ' # ' in line else line
    return ' '.join(re.split(r' {4,}(?=[a-z])', line)[0].split())


@dataclass(frozen=True)
class Step:
    """A command as the page has it, and what makes it short enough for a test."""

    line: str
    add: str = ''
    """Appended: options that come last win."""
    says: str = ''
    """What a command says that runs until it is interrupted; it is interrupted then."""
    status: int = 0
    """What it ends with; 1 of a monitor to whom nobody sends detections, and who says so."""
    long: bool = False
    """Run where PRUNED_PERCEPTION_COMMANDS=1 alone."""


OPTIMIZE = '--round-to 1 --minutes 0.03 --recipe quick --skip int8'
DRAWN = '--delta 0.1'

# Road → its commands, in the order in which somebody types them, in a folder of its own.
ROADS: dict[str, tuple[Step, ...]] = {
    'images': (
        Step(
            'pruned-perception bundle create detector.onnx my_models/detector --labels labels.txt '
            '--image drives/monday'
        ),
        Step('pruned-perception detect drives/monday --model my_models/detector --video look.mp4'),
        Step(
            'pruned-perception optimize my_models/detector --images drives/ --macs 0.5 '
            '--out my_family',
            OPTIMIZE,
        ),
        Step('pruned-perception data check my_set'),
        Step('pruned-perception evaluate my_set/test --model my_family'),
        Step('pruned-perception benchmark engine my_family', '--rounds 2 --runs 2'),
    ),
    'onnx': (
        Step(
            'pruned-perception bundle create detector.onnx my_models/detector --labels labels.txt '
            '--image picture.jpg'
        ),
    ),
    'optimize': (
        Step(
            'pruned-perception optimize detector.onnx --names labels.txt --images drives/ '
            '--macs 0.5 --out my_family',
            f'{OPTIMIZE} --dry-run',
        ),
        Step(
            'pruned-perception optimize detector.onnx --names labels.txt --images drives/ '
            '--macs 0.5 0.25 --out my_family',
            OPTIMIZE,
            long=True,
        ),
    ),
    'pytorch': (
        Step(
            'pruned-perception export --task yolo_task:task --decoder yolov8 --labels coco.names '
            '--out yolo/dense'
        ),
        Step('pruned-perception detect pictures/ --model yolo/dense --annotate out'),
        Step('pruned-perception prune --task yolo_task:task --macs 0.5 --out small.pt'),
        Step(
            'pruned-perception export small.pt --task yolo_task:task --decoder yolov8 '
            '--labels coco.names --parent yolo/dense --out yolo/half'
        ),
        Step('pruned-perception benchmark engine yolo', '--rounds 2 --runs 2'),
    ),
    'onnx step by step': (
        Step(
            'pruned-perception bundle create yolox_nano.onnx dense --decoder yolox '
            '--labels coco.names --color bgr --align top_left'
        ),
        Step(
            'pruned-perception sensitivity dense --calibration drive.mcap --out sensitivities.json'
        ),
        Step('pruned-perception predict sensitivities.json', DRAWN),
        Step('pruned-perception prune dense --calibration drive.mcap --macs 0.8 --out small.pt'),
        Step(
            'pruned-perception export small.pt --parent dense --compare-on drive.mcap --out small'
        ),
    ),
    'bundles': (
        Step('ssh-keygen -t ed25519 -f release_key', "-N ''"),
        Step('pruned-perception bundle sign models/my_family --key release_key'),
        Step('pruned-perception bundle verify models/my_family --trusted-keys release_key.pub'),
        Step(
            'pruned-perception bundle create yolox_nano.onnx my_models/yolox --decoder yolox '
            '--labels coco.names --color bgr --align top_left --score-threshold 0.3 '
            '--iou-threshold 0.45'
        ),
        Step('pruned-perception detect pictures/ --model my_models/yolox --annotate out/'),
        Step(
            'pruned-perception bundle create small.onnx mine --decoder yolov8 '
            '--labels coco.names --std 255 255 255 --iou-threshold 0.7'
        ),
        Step('pruned-perception bundle show models/warehouse/tenth'),
        Step(
            'pruned-perception benchmark engine models/warehouse', '--rounds 2 --runs 2', long=True
        ),
    ),
    'simulation': (
        Step(
            'pruned-perception simulate --split test --frames 1200 --seed 3 --out data/test',
            '--frames 2',
        ),
        Step(
            'pruned-perception simulate --split train --frames 6000 --seed 1 --out data/train',
            '--frames 2',
            long=True,
        ),
        Step(
            'pruned-perception simulate --split validation --frames 400 --seed 2 '
            '--out data/validation',
            '--frames 2',
            long=True,
        ),
        Step(
            'pruned-perception simulate --split train --frames 300 --seed 77 --out DATA/drive',
            '--frames 2',
            long=True,
        ),
        Step(
            'pruned-perception simulate --split test --frames 600 --out DATA/test',
            '--frames 2',
            long=True,
        ),
        Step(
            'pruned-perception simulate --split test --seed 5 --frames 2400 --out shift',
            '--frames 2',
            long=True,
        ),
        Step(
            'pruned-perception evaluate shift --model models/warehouse --corruptions '
            '--severities 1 3 5 --images 240 --out shift-corrupted',
            '--images 1 --severities 1',
            long=True,
        ),
        Step(
            'pruned-perception evaluate ~/.cache/pruned_perception/warehouse/test '
            '--model models/warehouse',
            long=True,
        ),
        Step('pruned-perception world', long=True),
        Step('pruned-perception world --light', long=True),
        Step('pruned-perception world --format mjcf --output mujoco', long=True),
        Step('pruned-perception world --check worlds/warehouse.sdf', long=True),
    ),
    'profile': (
        Step(
            'pruned-perception benchmark engine my_family/dense --execution-provider cpu openvino',
            '--execution-provider cpu --rounds 2 --runs 2',
        ),
        Step('pruned-perception profile my_family/dense --out robot.json', long=True),
    ),
    'live': (
        Step(
            'pruned-perception record /camera/image_raw -o drives/monday --duration 120',
            '--duration 2',
        ),
        Step(
            'pruned-perception up perception model:=$PWD/my_family image:=/camera/image_raw',
            says='active',
        ),
        Step('pruned-perception monitor', '--duration 3'),
        Step('pruned-perception view /front', '--port 0', says='http://127.0.0.1:', long=True),
        Step('pruned-perception monitor /front', '--duration 3', status=1, long=True),
        Step('pruned-perception monitor /front /rear', '--duration 3', status=1, long=True),
        Step('pruned-perception monitor --json --duration 60', '--duration 3', long=True),
        Step(
            'pruned-perception up perception model:=$PWD/my_family latency_budget_ms:=30 '
            'image:=/camera/image_raw',
            says='active',
            long=True,
        ),
    ),
    'bags': (
        Step(
            'pruned-perception record -o bag /front/image_raw /front/camera_info',
            '--duration 2',
            long=True,
        ),
        Step(
            'pruned-perception play bag --new-stamps --stamps stamps.json',
            '--wait-for /front/image_raw=0 /front/camera_info=0',
            long=True,
        ),
    ),
    'benchmarks': (
        Step(
            'pruned-perception benchmark node --model models/warehouse/tenth --rate 10,30,60,max '
            '--html node.html',
            '--rate 30,max --rounds 1 --seconds 3',
            long=True,
        ),
        Step(
            'pruned-perception benchmark node --model models/warehouse/tenth '
            'models/warehouse/tenth --seconds 3',
            '--rounds 1',
            long=True,
        ),
        Step(
            'pruned-perception benchmark node --model models/warehouse models/warehouse/dense '
            'models/warehouse/tenth --budget 30 --rounds 1 --seconds 6',
            '--seconds 3',
            long=True,
        ),
        Step(
            'pruned-perception benchmark overhead --member tenth --pairs 6 --frames 200',
            '--pairs 2 --frames 70 --no-profile',
            long=True,
        ),
        Step(
            'pruned-perception benchmark overhead --member half --pairs 6 --frames 200',
            '--pairs 2 --frames 70 --no-profile',
            long=True,
        ),
        Step(
            'pruned-perception benchmark startup --member tenth --pairs 9 --seconds 0.5',
            '--pairs 2',
            long=True,
        ),
        Step(
            'pruned-perception benchmark contract --budget 30 --load 2',
            '--rounds 1 --seconds 2',
            long=True,
        ),
    ),
    'shipped': (
        Step(
            'pruned-perception import models/warehouse/dense --out dense.pt '
            '--calibration DATA/train',
            long=True,
        ),
        Step(
            'pruned-perception prune dense.pt --macs 0.5 --criterion joint_error '
            '--allocation proportional --allocation-by quadrants --refit '
            '--calibration DATA/train --out half.pt',
            long=True,
        ),
        Step(
            'pruned-perception export half.pt --out half --compare-on DATA/test',
            '--parent models/warehouse/dense',
            long=True,
        ),
        Step('pruned-perception evaluate DATA/test --model half', long=True),
    ),
    'files': (
        Step(
            "sed 's#/perception_node/#/front/perception_node/#' config/foxglove.json > front.json"
        ),
        Step(
            'python3 -m pruned_perception.nodes.security_policy --namespace front '
            '--image /camera/image_raw --image-transport compressed > front.xml'
        ),
        Step('python -m studies.market table', long=True),
    ),
}

OVER_DDS = ('live', 'bags', 'benchmarks')
"""Roads whose commands are nodes, or watch them."""

# Beginning of a command → the test that runs it, or what it does.
TESTED: dict[str, str] = {
    '--task mynet:task': 'test/cli/test_pruning_commands.py',
    'pruned-perception predict sensitivity.json': 'test/cli/test_pruning_commands.py',
    'pruned-perception pruning-report': 'test/cli/test_pruning_commands.py',
    'pruned-perception compare mynet.yaml': 'test/cli/test_compare_command.py',
    'pruned-perception profile': 'test/cli/test_profile_command.py',
    'pruned-perception quantize': 'test/cli/test_quantize_command.py',
    'pruned-perception benchmark gazebo': 'test/benchmark/test_gazebo.py',
    'pruned-perception up simulation': 'test/nodes/test_up.py',
    'pruned-perception demo': 'test/benchmark/test_demo.py',
    'dev demo': 'test/benchmark/test_demo.py',
    'pruned-perception up perception model:=my_family latency': 'test/nodes/test_up.py',
    'pruned-perception up perception model:=$PWD/yolo member': 'test/nodes/test_up.py',
    'up perception model:=robocup': 'test/nodes/test_up.py',
    'ray s': 'test/compare/test_ray_engine.py',
    '--unlabelled --model': 'test/report/test_gallery.py',
}

# Pattern → why a test does not run it.
ELSEWHERE: dict[str, str] = {
    r'REPOSITORY': 'there is no address yet',
    r'^(pruned_perception|\.)/dev shell': 'is how the environment of this test is made',
    r'^(ros2|rviz2|colcon|export|rsync|sudo) ': 'needs an installed ROS 2',
    r'^ssh -L ': 'needs another machine',
    r'^pruned-perception up perception$': 'is the next one, with names',
    r'^pip ': 'installs what this environment has, or must not have',
    r'\[--| …|\b(PATH|FILE|OLD|FAMILY|BUNDLE|DATASET|SOURCE|ADDRESS)\b': 'names, no command',
    r'^pruned-perception (models|compare studies/)': 'hours; data of its own',
    r'^python -m studies\.(?!market table)': 'minutes to hours, and data of others',
    r'^(for net in|done)': 'a loop around a study',
    r'--speedup 2 ': 'needs a network that takes milliseconds',
    r'--device cuda': 'needs a GPU',
    r'small.onnx mine --decoder (yolox|nanodet)': 'needs a repository of others',
    r'robocup_msl|fastestdet|yolox/parent|TRAINING_SET|TEST_SET': 'needs data of others',
    r' ~/.cache/pruned_perception/robocup/': 'needs data of others',
    r'runs/dense/final.pt|tuned.pt|--child half': 'needs a training of minutes',
}


def reason(line: str) -> str | None:
    """Return why a test does not run a command here, or which one does; None: nothing is known."""
    tested = next((f'run by {test}' for part, test in TESTED.items() if part in line), None)
    return tested or next((why for what, why in ELSEWHERE.items() if re.search(what, line)), None)
