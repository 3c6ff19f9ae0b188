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

"""A Ray cluster that somebody started: its nodes make the cells.

Ray itself is imported by a process of its own, `ray_connection`: when the head of a cluster goes,
Ray may end the process that is connected to it, and that must not be ours. Its reports of usage are
off in that process's environment, before anything of Ray is imported, and no dashboard is opened,
since no cluster is started.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pruned_perception._processes import start, stop
from pruned_perception.compare.engines import ONE_THREAD, Ending, EngineError, Run
from pruned_perception.compare.fingerprint import RESULTS, fingerprint
from pruned_perception.compare.lease import STOP

INSTALL = "pip install 'pruned_perception[ray]'"
NO_REPORTS = {'RAY_USAGE_STATS_ENABLED': '0', 'RAY_USAGE_STATS_PROMPT_ENABLED': '0'}
LOG = 'ray.log'
ANSWER_S = 5.0
IMPORT_S = 60.0
CONNECT_S = 20.0
SILENCE_S = 30.0
PASSED_ON = ('PYTHONPATH',)
OWN_VARIABLES = 'PRUNED_PERCEPTION_'


class _LostError(EngineError):
    """The process that is connected to the cluster has ended, or says nothing."""


class RayEngine:
    """Cells as tasks of a Ray cluster, each a process of its own with one thread.

    Args:
        address: of the head, host:port; by default $RAY_ADDRESS, else the cluster that this machine
            is part of. This machine must be part of it.
        cpus: what Ray sets aside for a cell; the cell computes with one thread all the same.
        gpus: likewise; a share where it is below 1.
        jobs: how many cells at a time at most; by default as many as the cluster takes.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        cpus: float = 1.0,
        gpus: float = 0.0,
        jobs: int | None = None,
    ) -> None:
        self.address = address or os.environ.get('RAY_ADDRESS') or 'auto'
        self.resources = {'num_cpus': cpus, 'num_gpus': gpus}
        self.places = float('inf') if jobs is None else float(jobs)
        self._connection: Connection
        self._ended: dict[str, Ending] = {}
        self._remarks: list[str] = []

    @contextlib.contextmanager
    def run(self, run: Run) -> Iterator[None]:
        """Connect, and take up work on a comparison.

        Raises:
            EngineError: Ray is not installed, nothing answers at the address, or no node has the
                resources of a cell.
        """
        if importlib.util.find_spec('ray') is None:
            raise EngineError(f'engine ray: Ray is not installed: {INSTALL}')
        _ask(self.address)
        environment = os.environ | NO_REPORTS
        self._log = run.results / LOG
        self._connection, theirs = Pipe()
        with theirs, self._log.open('wb') as log:
            process = start(
                [sys.executable, '-m', 'pruned_perception.compare.engines.ray_connection',
                 str(theirs.fileno())],
                environment=environment, stdout=log, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        try:
            with self._connection:
                self._send('connect', self.address, self.resources, _order(run))
                self._await('alive', run, within=IMPORT_S)
                try:
                    self._await('ready', run, within=CONNECT_S)
                except _LostError as error:
                    raise EngineError(
                        f'--address {self.address}: no head of a Ray cluster answers there '
                        f'({error}; see {self._log}); `ray start --head` starts one'
                    ) from error
                try:
                    yield
                    run.lease.stop()
                    self._send('stop')
                    self._await('stopped', run, within=SILENCE_S)
                except _LostError as error:
                    raise EngineError(
                        f'engine ray: the connection with the cluster at {self.address} is lost '
                        f'({error}; see {self._log}). Results that are there are kept: the same '
                        'command goes on when the cluster is back, and so does --engine local'
                    ) from error
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(ANSWER_S)  # it ends of itself, for nobody listens any more
            stop([process], patience=ANSWER_S, signals=[signal.SIGTERM, signal.SIGKILL])

    def start(self, cell: str, log: Path) -> None:
        """Queue a cell."""
        log.unlink(missing_ok=True)  # until it has begun there is nothing to be said of it
        self._send('start', cell, os.path.abspath(log))  # noqa: PTH100

    def ended(self) -> dict[str, Ending]:
        """Return the cells whose processes ended since the last call."""
        self._receive(within=SILENCE_S)
        found, self._ended = self._ended, {}
        return found

    def remarks(self) -> list[str]:
        """Return what there is to say since the last call: nodes that make no cells, and why."""
        found, self._remarks = self._remarks, []
        return found

    def _await(self, kind: str, run: Run, *, within: float) -> None:
        """Wait for a message; something must be heard again and again in the time."""
        self._heard = time.monotonic()
        while not self._receive(kind, within=within):
            time.sleep(0.05)
            run.lease.tick()

    def _send(self, *message: Any) -> None:
        with contextlib.suppress(OSError):  # told by `_receive`
            self._connection.send(message)

    def _receive(self, awaited: str = '', *, within: float) -> bool:
        """Take in what the connection says; return whether `awaited` is among it."""
        try:
            while self._connection.poll():
                kind, *content = self._connection.recv()
                self._heard = time.monotonic()
                if kind == awaited:
                    return True
                if kind == 'ended':
                    self._ended[content[0]] = Ending(*content[1:])
                elif kind == 'remark':
                    self._remarks.append(content[0])
                elif kind == 'failed':
                    raise EngineError(f'engine ray: {content[0]}')
        except (EOFError, ConnectionError) as error:
            raise _LostError(_last_words(self._log) or 'its process has ended') from error
        if time.monotonic() - self._heard > within:
            raise _LostError(f'nothing heard for {within:g} s')
        return False


def _order(run: Run) -> dict[str, Any]:
    """Return what a node has to know."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED_ON or name.startswith(OWN_VARIABLES)
    }
    check = ['-m', 'pruned_perception.compare.fingerprint', str(run.study.path), str(run.results)]
    return {
        'folder': str(Path.cwd()),
        'environment': passed | ONE_THREAD,
        'command': list(run.command[1:]),
        'check': check,
        'expected': {RESULTS: run.lease.token, **fingerprint(run.study)},
        'lease': os.path.abspath(run.lease.path),  # noqa: PTH100
        'token': run.lease.token,
        'stop': STOP,
    }


def _ask(address: str) -> None:
    """Raise EngineError where nothing answers at an address, in seconds."""
    if address == 'auto':
        return
    host, _, port = address.rpartition(':')
    if not host or '/' in host or not port.isdigit():
        raise EngineError(f'--address {address}: must be host:port, that of the head of a cluster')
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise EngineError(
            f'--address {address}: no answer: {error}; is the head running there? '
            '`ray start --head` prints its address'
        ) from error


def _last_words(log: Path) -> str:
    """Return the last line of a log."""
    lines = log.read_text(encoding='utf-8', errors='replace').split('\n')
    return next((line.strip() for line in reversed(lines) if line.strip()), '')[:200]
