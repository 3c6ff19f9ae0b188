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

"""Fixtures that several parts' tests share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from tiny_detector import write_tiny_bundle

from pruned_perception.bundle import Bundle

ROOT = Path(__file__).resolve().parents[1]
WAITING = 'mark.waiting'  # in files whose tests mostly wait
DDS = ('mark.ros', 'mark.launch_test')  # in files whose tests are over DDS

# No test fails for the time it takes on a busy machine.
hypothesis.settings.register_profile(
    'untimed',
    deadline=None,
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile('untimed')

# A shell's background job ignores Ctrl-C, and so would every process that a test starts and
# interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the tests of a file to one process, and those over DDS all to the same one.

    So fixtures of a module are made once, and the processes of two ROS tests, which compete for
    the cores, never run at a time; but for those that leave them idle, which have a process of
    their own. (Each process has a domain of its own, see `ros_domain`.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition('::')[0]
            text = (ROOT / path).read_text(encoding='utf-8')
            if WAITING in text:
                return 'waiting'
            return 'over DDS' if any(mark in text for mark in DDS) else path

    return ByFile(config, log)


@pytest.fixture(autouse=True)
def arithmetic() -> Iterator[None]:
    """Put back what a command sets for a process of its own: threads, and flushed denormals."""
    torch = sys.modules.get('torch')
    threads = torch.get_num_threads() if torch else None
    yield
    torch = sys.modules.get('torch')
    if torch:
        torch.set_flush_denormal(False)
    if torch and threads:
        torch.set_num_threads(threads)


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Return the real data beside the checkout; its tests skip where it is absent."""
    folder = Path(os.environ.get('PRUNED_PERCEPTION_SHARED_DATA', ROOT.parent / 'shared' / 'data'))
    if not folder.is_dir():
        pytest.skip(f'no real data at {folder} (set PRUNED_PERCEPTION_SHARED_DATA)')
    return folder


@pytest.fixture(scope='session')
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Write a bundle of the tiny colour detector; see tiny_detector.py. Do not change its files."""
    return write_tiny_bundle(tmp_path_factory.mktemp('tiny') / 'bundle')


@pytest.fixture(scope='session')
def tiny_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a family of two tiny members, `dense` and `small`. Do not change its files."""
    folder = tmp_path_factory.mktemp('family')
    dense = write_tiny_bundle(folder / 'dense', name='dense', macs=2000)
    parent = {'name': dense.name, 'sha256': dense.sha256}
    write_tiny_bundle(folder / 'small', name='small', macs=1000, gain=39.0, parent=parent)
    return folder
