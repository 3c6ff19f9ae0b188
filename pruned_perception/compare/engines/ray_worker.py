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

"""What a node of a cluster does for a cell: check that it may, run its process, end it in time.

Sent to the nodes by value, so it needs nothing but Python's own library (and `_processes`, likewise
sent): what a node has installed may be another version, or nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruned_perception._processes import start, stop

LOOK_S = 1.0
MISSED = 10
PATIENCE_S = 60.0


def run_cell(order: Mapping[str, Any], cell: str, log: str) -> tuple[str, Any, str]:
    """Return ('ended', exit status) or ('refused', why), and the node's id."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    if reason := refusal(order, node):
        return 'refused', reason, node
    return 'ended', _run(order, cell, log), node


def refusal(order: Mapping[str, Any], node: str) -> str:
    """Return why this node makes no cells, '' where it may; found out once per node."""
    memory = Path(tempfile.gettempdir(), f'pruned_perception-{order["token"]}-{node}-{os.getuid()}')
    with memory.open('a+') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if known := file.read():
            return str(json.loads(known))
        reason = _differing(order)
        file.write(json.dumps(reason))
        return reason


def _differing(order: Mapping[str, Any]) -> str:
    folder = order['folder']
    if not Path(folder).is_dir():
        return f'{folder}, where the comparison was started, is not there: share it'
    done = subprocess.run(
        [sys.executable, *order['check']],
        cwd=folder,
        env=_environment(order),
        capture_output=True,
        text=True,
    )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        lines = [line.strip() for line in (done.stderr + done.stdout).split('\n') if line.strip()]
        return f'{sys.executable}: {lines[-1] if lines else "no answer"}'
    different = [
        f'{name}: {found.get(name, "unknown")}, expected {value}'
        for name, value in order['expected'].items()
        if found.get(name) != value
    ]
    return '; '.join(different)


def _run(order: Mapping[str, Any], cell: str, log: str) -> int | None:
    """Run a cell's process; return its status, None where nobody wants the result any more."""
    with Path(log).open('wb') as file:
        process = start(
            [sys.executable, *order['command'], cell],
            environment=_environment(order),
            stdout=file,
            folder=order['folder'],
        )
    wanted = _Wanted(Path(order['lease']), order['token'], order['stop'])
    try:
        while process.poll() is None:
            if not wanted():
                return None
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
        return process.returncode
    finally:
        stop([process], patience=math.inf, signals=[signal.SIGTERM])


class _Wanted:
    """Whether the results are wanted: until the file of whoever asked says `stop`, or is still."""

    def __init__(self, path: Path, token: str, stop: str) -> None:
        self.path, self.token, self.stop = path, token, stop
        self.looked = self.changed = time.monotonic()
        self.last: str | None = None
        self.missed = 0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self.looked >= LOOK_S:
            self.looked = now
            try:
                text = self.path.read_text(encoding='utf-8')
            except OSError:
                text = self.last or ''
                self.missed += 1
            else:
                self.missed = 0 if text.startswith(self.token) else self.missed + 1
            if text != self.last:
                self.last, self.changed = text, now
            if text.split()[-1:] == [self.stop]:
                return False
        return self.missed < MISSED and now - self.changed < PATIENCE_S


def _environment(order: Mapping[str, Any]) -> dict[str, str]:
    return {**os.environ, **order['environment']}
