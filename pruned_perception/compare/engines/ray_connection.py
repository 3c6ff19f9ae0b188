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

"""The process that is connected to a Ray cluster; see `ray_cluster`, which starts and hears it.

Messages are tuples. It is told ('connect', address, resources, order), ('start', cell, log) and
('stop',), and says ('ready',), ('ended', cell, status, reason), ('remark', text), ('failed', text),
('stopped',), and ('alive',) every second.
"""

from __future__ import annotations

import logging
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pruned_perception import _processes
from pruned_perception.compare.engines import ray_worker

POLL_S = 0.1
LOOK_S = 2.0


class _FailedError(Exception):
    """The cluster cannot make the cells; the text says why."""


class _Cluster:
    """Tasks of a Ray cluster, and the nodes that were refused."""

    def __init__(
        self, connection: Connection, address: str, resources: dict[str, float], order: Any
    ) -> None:
        import ray

        self.ray, self.connection, self.resources, self.order = ray, connection, resources, order
        self.say('alive')
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # of many kinds; all of them say that there is no cluster for us
            raise _FailedError(
                f'cannot join the cluster at {address}: {_first_sentence(error)}; '
                '`ray start --head` starts one, --address HOST:PORT names another'
            ) from error
        # By value: what a node has installed may be another version, and must be able to say so.
        ray.cloudpickle.register_pickle_by_value(ray_worker)
        ray.cloudpickle.register_pickle_by_value(_processes)
        self.task = ray.remote(ray_worker.run_cell)
        self.tasks: dict[Any, tuple[str, str]] = {}
        self.refused: dict[str, str] = {}
        names = {'num_cpus': 'CPU', 'num_gpus': 'GPU'}
        self.wanted = {names[key]: value for key, value in resources.items()}
        self.check_resources()

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return the living nodes by their ids."""
        return {each['NodeID']: each for each in self.ray.nodes() if each['Alive']}

    def able(self) -> list[str]:
        """Return the living nodes that have what a cell needs, by their ids."""
        return [
            node
            for node, each in self.nodes().items()
            if all(each['Resources'].get(k, 0) >= v for k, v in self.wanted.items())
        ]

    def check_resources(self) -> None:
        """Raise where no node has what a cell needs."""
        if not self.able():
            nodes, wanted = [each['Resources'] for each in self.nodes().values()], self.wanted
            most = {key: max((node.get(key, 0) for node in nodes), default=0) for key in wanted}
            raise _FailedError(
                f'no node has what a cell is to have ({_listed(wanted)}); nodes have at most '
                f'{_listed(most)}: lower --cpus or --gpus'
            )

    def start(self, cell: str, log: str) -> None:
        """Queue a cell for any node that was not refused."""
        options: dict[str, Any] = {**self.resources, 'max_retries': 0, 'name': cell}
        if self.refused:
            options['label_selector'] = {'ray.io/node-id': f'!in({",".join(self.refused)})'}
        task = self.task.options(**options).remote(self.order, cell, log)
        self.tasks[task] = (cell, log)

    def look(self) -> None:
        """Say which tasks ended; queue those again that came to a node that is refused."""
        if not self.tasks:
            time.sleep(POLL_S)
            return
        every = list(self.tasks)
        ended, _ = self.ray.wait(every, num_returns=len(every), timeout=POLL_S)
        for task in ended:
            cell, log = self.tasks.pop(task)
            try:
                kind, content, node = self.ray.get(task)
            except self.ray.exceptions.RayTaskError as error:
                self.say('ended', cell, None, f'its worker failed: {_first_sentence(error.cause)}')
            except self.ray.exceptions.RayError as error:
                self.say('ended', cell, None, f'its worker died: {_first_sentence(error)}')
            else:
                if kind == 'refused':
                    self.refuse(node, content)
                    self.start(cell, log)
                else:
                    lost = content is None or content < 0
                    reason = f'its process was ended on {self.name(node)} ({content})'
                    self.say('ended', cell, None if lost else content, reason)

    def refuse(self, node: str, reason: str) -> None:
        """Give a node no more cells; raise where that was the last one."""
        if node not in self.refused:
            self.refused[node] = f'node {self.name(node)} makes no cells: {reason}'
            self.say('remark', self.refused[node])
        if not set(self.able()) - set(self.refused):
            raise _FailedError('no node can make cells; ' + '; '.join(self.refused.values()))

    def name(self, node: str) -> str:
        """Return a node's name for people."""
        found = next((each for each in self.ray.nodes() if each['NodeID'] == node), None)
        return f'{found["NodeManagerHostname"]} ({node[:8]})' if found else node[:8]

    def stop(self) -> None:
        """Wait until all cells have saved, which end by the lease; cancel what has not begun."""
        for task, (_, log) in self.tasks.items():
            if not Path(log).exists():
                self.ray.cancel(task)
        while self.tasks:
            every = list(self.tasks)
            ended, _ = self.ray.wait(every, num_returns=len(every), timeout=1.0)
            for task in ended:
                del self.tasks[task]
            self.say('alive')
        self.say('stopped')

    def say(self, *message: Any) -> None:
        """Send a message."""
        self.connection.send(message)


def serve(connection: Connection) -> None:
    """Do what is asked for, until `stop`."""
    kind, *content = connection.recv()
    assert kind == 'connect'
    cluster = _Cluster(connection, *content)
    cluster.say('ready')
    looked = time.monotonic()
    while kind != 'stop':
        while connection.poll() and kind != 'stop':
            kind, *content = connection.recv()
            if kind == 'start':
                cluster.start(*content)
        cluster.look()
        if time.monotonic() - looked > LOOK_S:
            cluster.nodes()  # asks the head: silent where that is gone
            cluster.say('alive')
            looked = time.monotonic()
    cluster.stop()


def _first_sentence(error: object) -> str:
    """Return the first sentence of an error: Ray adds advice for whole pages."""
    text = ' '.join(str(error).split()) or type(error).__name__
    return text.split('. ')[0][:200]


def _listed(resources: dict[str, float]) -> str:
    return ', '.join(f'{value:g} {name}s' for name, value in resources.items())


if __name__ == '__main__':
    with Connection(int(sys.argv[1])) as channel:
        try:
            serve(channel)
        except _FailedError as failure:
            channel.send(('failed', str(failure)))
        except (EOFError, BrokenPipeError):
            pass  # whoever asked has ended; Ray ends our tasks
