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

"""Children end with their parent, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pruned_perception.benchmark.children import Children
from pruned_perception.errors import UserError

STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('ready', flush=True)
time.sleep(60)
"""


def wait_for(condition: object, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def test_the_stubborn_are_killed_and_the_log_is_kept(tmp_path: Path) -> None:
    with Children(tmp_path, os.environ) as children:
        child = children.start('stubborn', [sys.executable, '-c', STUBBORN])
        assert wait_for(lambda: 'ready' in child.last_lines())
        children.stop(child, patience=0.3)
        assert child.process.returncode == -signal.SIGKILL
    assert 'ready' in (tmp_path / 'stubborn.log').read_text()


def test_leaving_the_block_by_an_exception_ends_them(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Children(tmp_path, os.environ) as children:
        child = children.start('sleeper', [sys.executable, '-c', 'import time; time.sleep(60)'])
        raise KeyboardInterrupt
    assert not child.alive


def test_a_child_that_ended_is_named_with_its_last_words(tmp_path: Path) -> None:
    with Children(tmp_path, os.environ) as children:
        program = "import sys; print('no GL driver', file=sys.stderr); sys.exit(3)"
        child = children.start('robot', [sys.executable, '-c', program])
        child.process.wait(20)
        with pytest.raises(UserError, match=r'robot ended with status 3:\n  no GL driver'):
            child.require_alive()


@pytest.mark.skipif(sys.platform != 'linux', reason='PR_SET_PDEATHSIG is Linux only')
def test_killing_the_parent_ends_them(tmp_path: Path) -> None:
    program = (
        'import os, sys, time\n'
        'from pathlib import Path\n'
        'from pruned_perception.benchmark.children import Children\n'
        'with Children(Path(sys.argv[1]), os.environ) as children:\n'
        "    child = children.start('c', [sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        '    print(child.process.pid, flush=True)\n'
        '    time.sleep(60)\n'
    )
    root = str(Path(__file__).resolve().parents[2])
    parent = subprocess.Popen(
        [sys.executable, '-c', program, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': root},
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
