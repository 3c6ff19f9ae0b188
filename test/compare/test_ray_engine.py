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

"""A comparison on a Ray cluster of two nodes, started here and broken piece by piece."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blobs
import psutil
import pytest
import yaml

pytest.importorskip('ray', reason="Ray is not installed: extra 'ray'")

ROOT = Path(__file__).resolve().parents[2]
SLOW = """
import time
import blobs

def step(model, batch):
    time.sleep(0.1)
    return blobs.step(model, batch)

def task():
    return blobs.task(step=step)
"""
STUDY = {
    'task': 'slow:task',
    'methods': {'l2': {'criterion': 'filter_l2', 'round_to': 1}},
    'budgets': {'macs': [0.5]},
    'seeds': [0, 1, 2, 3, 4],
    'finetune': {'steps': 30, 'learning_rate': 0.05},
}
ENVIRONMENT = {
    **os.environ,
    'PYTHONPATH': str(ROOT),
    'RAY_USAGE_STATS_ENABLED': '0',
    'OMP_NUM_THREADS': '1',
}
PATIENCE_S = 240.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a network of a user's, and a comparison."""
    shutil.copy(blobs.__file__, tmp_path)
    (tmp_path / 'slow.py').write_text(SLOW)
    (tmp_path / 'study.yaml').write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return tmp_path


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def _ray_start(*options: str) -> Iterator[psutil.Process]:
    """Start a node with one CPU; in the end, none of its processes is left."""
    command = [str(Path(sys.executable).with_name('ray')), 'start', '--block', '--num-cpus=1',
               '--object-store-memory=80000000', '--disable-usage-stats', *options]  # fmt: skip
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as node:
        try:
            yield psutil.Process(node.pid)
        finally:
            _kill(psutil.Process(node.pid))


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def _compare(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, '-m', 'pruned_perception.cli.main', 'compare', 'study.yaml', *options],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _await(process: subprocess.Popen[str], condition: Callable[[], Any]) -> Any:
    """Return what the condition gives once that is something."""
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, 'it takes too long'
        time.sleep(0.05)
    return found


def _workers(node: psutil.Process) -> list[psutil.Process]:
    """Return a node's processes that have a cell which trains."""
    return [
        each
        for each in node.children(recursive=True)
        if each.name().startswith('ray::l2') and each.children()
    ]


def test_a_comparison_survives_its_workers_a_node_and_in_the_end_the_head(folder: Path) -> None:
    """The cells' order is not ours, so each is broken as soon as there is something to break."""
    port, results = _free_port(), folder / 'study.results'
    at_head = f'127.0.0.1:{port}'
    with _ray_start('--head', f'--port={port}', '--include-dashboard=false') as head:
        with _ray_start(f'--address={at_head}') as second:
            while True:  # until the head answers
                process = _compare(folder, '--engine', 'ray', '--address', at_head, '--quiet')
                with contextlib.suppress(AssertionError):
                    worker = _await(process, lambda: _workers(second))[0]
                    break
            worker.kill()
            _await(process, lambda: [each for each in _workers(second) if each != worker])
            _kill(second)
        _await(process, lambda: list(results.glob('l2-*.json')))
        _kill(head)
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, (output, errors)
    assert errors.count('; again') == 2, errors
    assert 'is lost' in errors
    assert '--engine local' in errors
    before = {path: path.read_bytes() for path in results.glob('*.json')}

    output, errors = _compare(folder, '--quiet', '--jobs', '2').communicate(timeout=PATIENCE_S)
    assert '6 of 6 cells done' in output, errors
    assert all(path.read_bytes() == content for path, content in before.items())
    options = ('--quiet', '--jobs', '2', '--results', 'local')
    _compare(folder, *options).communicate(timeout=PATIENCE_S)
    for path in results.glob('*.json'):
        ours, local = (
            json.loads((each / path.name).read_text()) for each in (results, folder / 'local')
        )
        for made in (ours, local):
            for name in ('cpu_seconds', 'finished_at'):
                del made[name]
            for stage in made['pipeline']['stages']:
                del stage['cpu_seconds'], stage['pruning']['cpu_seconds']
        assert ours == local, path.name
