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

from pruned_perception.compare.cell import run_cell
from pruned_perception.compare.study import read_study

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
    'seeds': [0, 1, 2, 3],
    'finetune': {'steps': 30, 'learning_rate': 0.05},
}
ENVIRONMENT = {
    **os.environ,
    'PYTHONPATH': str(ROOT),
    'RAY_USAGE_STATS_ENABLED': '0',
    'OMP_NUM_THREADS': '1',
}
PATIENCE_S = 240.0
RAY = [sys.executable, '-m', 'ray.scripts.scripts']


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
def _ray_start(*options: str) -> Iterator[subprocess.Popen[str]]:
    """Start a node with one CPU; in the end, none of its processes is left."""
    command = [*RAY, 'start', '--block', '--num-cpus=1',
               '--object-store-memory=80000000', '--disable-usage-stats', *options]  # fmt: skip
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    ) as node:
        try:
            yield node
        finally:
            _kill(node)


def _kill(node: subprocess.Popen[str]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(node.pid)
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


def _answers(port: int) -> bool:
    """Return whether a head is ready: its cluster has a living node."""
    status = [*RAY, 'status', f'--address=127.0.0.1:{port}']
    done = subprocess.run(status, env=ENVIRONMENT, capture_output=True, text=True)
    return 'CPU' in done.stdout


def _await(process: subprocess.Popen[str], condition: Callable[[], Any]) -> Any:
    """Return what the condition gives once that is something, while the process runs."""
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, 'it takes too long'
        time.sleep(0.05)
    return found


def _workers(node: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return a node's processes that have a cell which trains."""
    return [
        each
        for each in psutil.Process(node.pid).children(recursive=True)
        if each.name().startswith('ray::l2') and each.children()
    ]


def test_a_comparison_survives_its_workers_a_node_and_in_the_end_the_head(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells' order is not ours, so each is broken as soon as there is something to break."""
    port, results = _free_port(), folder / 'study.results'
    at_head = f'127.0.0.1:{port}'
    with _ray_start('--head', f'--port={port}', '--include-dashboard=false') as head:
        with _ray_start(f'--address={at_head}') as second:
            _await(head, lambda: _answers(port))
            process = _compare(folder, '--engine', 'ray', '--address', at_head, '--quiet')
            worker = _await(process, lambda: _workers(second))[0]
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
    assert '5 of 5 cells done' in output, errors
    assert all(path.read_bytes() == content for path, content in before.items())
    study = read_study(folder / 'study.yaml')
    monkeypatch.syspath_prepend(folder)
    for cell in study.cells[1:3]:
        ours = json.loads((results / f'{cell.name}.json').read_text())
        local = json.loads(json.dumps(run_cell(cell, folder / 'local').to_dict()))
        for made in (ours, local):
            for name in ('cpu_seconds', 'finished_at'):
                del made[name]
            for stage in made['pipeline']['stages']:
                del stage['cpu_seconds'], stage['pruning']['cpu_seconds']
        assert ours == local, cell.name
