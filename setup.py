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

"""One package that builds under colcon (ament_python) and installs with pip."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import find_packages, setup

NAME = 'pruned_perception'
SHARE = Path('share') / NAME
PACKAGE = ElementTree.parse('package.xml').getroot()
NODES = ('perception_node', 'echo_node', 'simulated_robot', 'route_driver')


def installed_tree(*folders: str) -> list[tuple[str, list[str]]]:
    """Return the data_files entries that put each folder, as it is, below share/NAME."""
    entries: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob('*')):
            if path.is_file() and '__pycache__' not in path.parts:
                entries.setdefault(str(SHARE / path.parent), []).append(str(path))
    return sorted(entries.items())


setup(
    name=NAME,
    version='0.1.0',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    package_data={NAME: ['py.typed', '**/*.json', '**/*.html', '**/*.yaml']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (str(SHARE), ['package.xml']),
        *installed_tree('launch', 'examples', 'config', 'models', 'worlds'),
        # pip knows no install_scripts (setup.cfg), so launch and `ros2 run` would find nothing;
        # colcon knows them, so the command would not be on the PATH.
        (f'lib/{NAME}', [f'scripts/{name}' for name in (*NODES, 'pruned-perception')]),
        ('bin', ['scripts/pruned-perception']),
    ],
    install_requires=[
        'setuptools',
        'numpy>=1.24',
        'onnxruntime>=1.17',
        'opencv-python-headless>=4.6',
        'PyYAML>=6',
        'rich>=11.2',
    ],
    extras_require={
        # ROS 2 from PyPI, for machines without one; vision_msgs and statistics_msgs are then built
        # from interfaces/. constraints.txt has the versions (Kilted).
        'ros': [
            'ros-diagnostic-msgs',
            'ros-geometry-msgs',
            'ros-lifecycle-msgs',
            'ros-rclpy',
            'ros-rmw-fastrtps-cpp',
            'ros-rosgraph-msgs',
            'ros-sensor-msgs',
            'ros-std-msgs',
        ],
        # Recording, replay, COCO metrics, plots and pages: what benchmarks need beside the robot's
        # part.
        'bench': ['jinja2>=3', 'matplotlib>=3.5', 'pycocotools>=2.0.7', 'rosbags>=0.10'],
        'sim': ['mujoco>=3.3,<5'],
        'train': [
            'jinja2>=3',
            'onnx>=1.16',
            'onnxscript',
            'pycocotools>=2.0.7',
            'scipy>=1.10',
            'torch>=2.4',
        ],
        # Comparisons on a Ray cluster that is running; nothing else needs it.
        'ray': ['ray>=2.49'],
        'study': ['torch-pruning>=1.6.1,<2'],  # the peer that studies compare with
        'test': [
            'hypothesis',
            'import-linter',
            'jsonschema>=4',
            'mypy',
            'psutil>=5.9',
            'pytest<8.4',
            'pytest-xdist>=3.6',  # since then, tests run in their process's main thread
            'ruff',
            'types-PyYAML',
        ],
    },
    zip_safe=True,
    python_requires='>=3.10',
    author=PACKAGE.findtext('author'),
    maintainer=PACKAGE.findtext('maintainer'),
    maintainer_email=PACKAGE.find('maintainer').get('email'),
    url=PACKAGE.findtext('url'),
    description='Object detection on the robot itself, by neural networks pruned with guarantees.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'pruned-perception = pruned_perception.cli.main:main',
            *(f'{name} = {NAME}.nodes.{name}:main' for name in NODES),
        ],
    },
)
