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
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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
    'seeds': [0, 1, 2],
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


def _await(condition: object, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def _steps(results: Path, cell: str) -> list[int]:
    """Return the steps that the log of a cell's training has."""
    return [
        json.loads(line)['step']
        for log in results.glob(f'{cell}/*/1/log.jsonl')
        for line in log.read_text().splitlines()
    ]


def test_a_comparison_survives_its_workers_a_node_and_the_head(folder: Path) -> None:
    address = f'127.0.0.1:{_free_port()}'
    results = folder / 'study.results'
    ray = ['--engine', 'ray', '--address', address]
    with (
        _ray_start(
            '--head', f'--port={address.rpartition(":")[2]}', '--include-dashboard=false'
        ) as head,
        _ray_start(f'--address={address}') as second,
    ):
        while True:  # both have joined once cells are under way on both
            process = _compare(folder, *ray)
            with contextlib.suppress(AssertionError):
                _await(lambda: len(list(results.glob('l2-*/*/1/log.jsonl'))) >= 2, process)
                break
        workers = [
            each
            for each in psutil.Process(process.pid).parent().children(recursive=True)
            if 'ray::l2' in ' '.join(each.cmdline())
        ]
        workers[0].send_signal(signal.SIGKILL)
        _kill(second)
        _await(lambda: list(results.glob('l2-*.json')), process)
        _kill(head)
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, (output, errors)
    assert 'again' in errors
    assert 'no connection with the cluster' in errors
    assert '--engine local' in errors
    before = {path: path.read_bytes() for path in results.glob('*.json')}
    assert len(before) >= 1

    process = _compare(folder)
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert '4 of 4 cells done' in output
    assert all(path.read_bytes() == content for path, content in before.items())
    process = _compare(folder, '--results', 'local')
    _, errors = process.communicate(timeout=PATIENCE_S)
    for path in sorted(results.glob('*.json')):
        one, other = (
            json.loads((each / path.name).read_text()) for each in (results, folder / 'local')
        )
        assert one['after'] == other['after']
        assert one['outcomes'] == other['outcomes']
        assert one['pipeline']['stages'][0]['steps'] == other['pipeline']['stages'][0]['steps']
