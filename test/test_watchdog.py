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

"""The end of a process does not depend on its interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pruned_perception._watchdog import STATUS

# Hours in native code, with the interpreter's lock: no line of Python runs in any thread.
FROZEN = 'sum(range(10**13))'
WATCHED = 'from pruned_perception._watchdog import Watchdog, end_now; dog = Watchdog()\n'


def run(program: str) -> int:
    """Return the exit status of a program."""
    return subprocess.run([sys.executable, '-c', WATCHED + program], timeout=60).returncode


def test_a_frozen_interpreter_is_ended() -> None:
    assert run(f'dog.feed(0.5)\n{FROZEN}') == STATUS


def test_what_is_fed_lives_and_what_is_no_longer_fed_does_not() -> None:
    fed = 'import time\nfor _ in range(20): dog.feed(0.4); time.sleep(0.05)\n'
    assert run(f'{fed}dog.stop(); time.sleep(1); raise SystemExit(3)') == 3
    assert run(f'{fed}time.sleep(300)') == STATUS


def test_an_allowance_is_not_shortened_by_feeding() -> None:
    assert (
        run('import time; dog.allow(300); dog.feed(0.1); time.sleep(1); raise SystemExit(3)') == 3
    )


def test_the_last_feed_is_the_last() -> None:
    assert (
        run('import time; dog.last(0.5); dog.feed(300); dog.allow(300); time.sleep(300)') == STATUS
    )


def test_the_last_feed_does_not_put_off_the_end() -> None:
    assert run('import time; dog.feed(0.5); dog.last(300); time.sleep(300)') == STATUS


def test_it_ends_itself_the_same_way() -> None:
    assert run('end_now()') == STATUS


def test_a_process_that_was_stopped_for_longer_goes_on() -> None:
    """Ctrl-Z, a paused container, a debugger: the timer runs on, the process does not."""
    program = (
        'import time\nprint("ready", flush=True)\nend = time.monotonic() + 6\n'
        'while time.monotonic() < end: dog.feed(2.0); time.sleep(0.02)\nraise SystemExit(3)'
    )
    with subprocess.Popen(
        [sys.executable, '-c', WATCHED + program], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b'ready\n'
        process.send_signal(signal.SIGSTOP)
        time.sleep(4.0)
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 3


def test_the_first_process_of_a_container_is_ended_too() -> None:
    """The kernel's default actions do not hold for it."""
    unshare = ['unshare', '--map-root-user', '--pid', '--fork', '--mount-proc']
    try:
        tried = subprocess.run([*unshare, 'true'], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip('needs unshare (util-linux)')
    if tried.returncode:
        pytest.skip(f'namespaces are not permitted here: {tried.stderr.decode().strip()}')
    environment = {**os.environ, 'PYTHONPATH': str(Path(__file__).resolve().parents[1])}
    for program in (f'dog.feed(0.5)\n{FROZEN}', 'end_now()'):
        ended = subprocess.run(
            [*unshare, sys.executable, '-c', WATCHED + program], env=environment, timeout=60
        )
        assert ended.returncode != 0
