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

"""The processes of `up`, with small Python programs in the place of nodes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from pruned_perception.nodes import supervisor
from pruned_perception.nodes.supervisor import Supervisor

TIMEOUT = 60.0  # seconds; only a failing test waits so long


def program(source: str) -> list[str]:
    # -I -S: as little as possible before the first line, and no hooks of the environment.
    return [sys.executable, '-I', '-S', '-c', textwrap.dedent(source)]


class Output(io.StringIO):
    """Text that a thread can wait for."""

    def wait_for(self, text: str, count: int = 1) -> None:
        end = time.monotonic() + TIMEOUT
        while self.getvalue().count(text) < count:
            assert time.monotonic() < end, f'no {text!r} in:\n{self.getvalue()}'
            time.sleep(0.01)


def interrupt_after(out: Output, text: str, count: int = 1) -> None:
    """Send this process SIGINT once `text` has appeared, as Ctrl-C would."""

    def wait_and_send() -> None:
        try:
            out.wait_for(text, count)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait_and_send, daemon=True).start()


def test_output_appears_by_lines_with_the_name_of_its_process() -> None:
    out = Output()
    commands = {
        'a': program("""
            import sys
            print('one')
            print('two', file=sys.stderr)
            print('no newline', end='')
        """)
    }
    assert Supervisor(commands, os.environ, out=out).run() == 0
    lines = out.getvalue().splitlines()
    assert {'[a] one', '[a] two', '[a] no newline'} <= set(lines)
    assert lines[-1] == '[a] ended with exit code 0'


def test_a_process_that_fails_is_reported_and_the_others_go_on() -> None:
    out = Output()
    commands = {
        'bad': program('raise SystemExit(3)'),
        'good': program('import time; time.sleep(1); print("still here")'),
    }
    assert Supervisor(commands, os.environ, out=out).run() == 1
    assert '[bad] ended with exit code 3' in out.getvalue()
    assert '[good] still here' in out.getvalue()


def test_a_process_that_ends_is_started_again_after_the_delay() -> None:
    out = Output()
    interrupt_after(out, '[a] hello', count=3)
    commands = {'a': program('print("hello", flush=True); raise SystemExit(1)')}
    assert Supervisor(commands, os.environ, respawn_delay=0.1, out=out).run() == 0
    assert '[a] ended with exit code 1; it starts again in 0.1 s' in out.getvalue()


@pytest.mark.parametrize('number', supervisor.STOP_SIGNALS)
def test_a_signal_ends_all_processes_by_sigint(number: signal.Signals, tmp_path: Path) -> None:
    """In a process of its own, so that either signal can be sent."""
    script = tmp_path / 'up.py'
    script.write_text(
        textwrap.dedent("""
        import os, sys
        from pruned_perception.nodes.supervisor import Supervisor
        child = '''
        import os, signal, time
        def on_signal(number, frame):
            os.write(1, b'got ' + signal.Signals(number).name.encode() + bytes([10]))
            raise SystemExit(0)
        signal.signal(signal.SIGINT, on_signal)
        print('ready', flush=True)
        time.sleep(300)
        '''.replace('\\n        ', '\\n')
        commands = {name: [sys.executable, '-I', '-S', '-c', child] for name in 'ab'}
        sys.exit(Supervisor(commands, os.environ).run())
        """)
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    while sum('ready' in line for line in lines) < 2:
        line = process.stdout.readline()
        assert line, lines
        lines.append(line)
    process.send_signal(number)
    rest, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    for name in 'ab':
        assert f'[{name}] got SIGINT' in rest
        assert f'[{name}] ended with exit code 0' in rest


def test_a_process_that_ignores_signals_is_killed_and_that_is_no_clean_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, 'PATIENCE_S', 0.5)
    out = Output()
    interrupt_after(out, 'deaf')
    commands = {
        'a': program("""
            import signal, time
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print('deaf', flush=True)
            time.sleep(300)
        """)
    }
    assert Supervisor(commands, os.environ, out=out).run() == 1
    text = out.getvalue()
    assert text.index('SIGTERM') < text.index('has not ended within 0.5 s: SIGKILL')
    assert '[a] was ended by SIGKILL' in text


def test_processes_end_with_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    if sys.platform != 'linux':
        pytest.skip('needs PR_SET_PDEATHSIG')
    script = tmp_path / 'up.py'
    script.write_text(
        textwrap.dedent("""
        import os, sys
        from pruned_perception.nodes.supervisor import Supervisor
        child = 'import os, time; print("pid", os.getpid(), flush=True); time.sleep(300)'
        Supervisor({'a': [sys.executable, '-I', '-S', '-c', child]}, os.environ).run()
        """)
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = ''
    while '[a] pid' not in line:
        line = process.stdout.readline()
        assert line
    child = int(line.split()[-1])
    process.kill()
    process.wait()
    end = time.monotonic() + TIMEOUT
    while _running(child):
        assert time.monotonic() < end, 'the child has outlived its supervisor'
        time.sleep(0.01)


def _running(pid: int) -> bool:
    try:
        status = Path(f'/proc/{pid}/stat').read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(')')[2].split()[0] != 'Z'  # a zombie waits for init alone


def test_what_a_process_prints_cannot_steer_the_terminal() -> None:
    """Names of topics and nodes of others get into logs."""
    out = Output()
    commands = {'a': program("print('\\x1b[2J\\u202ename\\tafter')")}
    assert Supervisor(commands, os.environ, out=out).run() == 0
    assert '[a] \\x1b[2J\\u202ename' in out.getvalue()
    assert out.getvalue().replace('\n', '').isprintable()
