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

"""How soon a stuck model is an error, transitions answer beside it, and the node runs again.

    python test/nodes/measure_stuck.py [--busy N] [--rounds N] [--breakable]

Real processes: `pruned-perception up perception respawn:=true` with a network that does not end on
a white image, beside N busy processes. Tests assert the order of events; times are printed here.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the modules of the tests

import numpy as np
import rclpy
from lifecycle_msgs.srv import ChangeState, GetState
from ros_harness import Observer, environment, image_message, new_context
from sensor_msgs.msg import Image
from stuck_networks import write_stuck_bundle

LIMIT_S = 4.0
DARK = np.zeros((96, 128, 3), np.uint8)
WHITE = np.full_like(DARK, 255)


class Up:
    """The supervised node, and when each of its processes started and ended."""

    def __init__(self, folder: Path, namespace: str, breakable: bool) -> None:
        bundle = write_stuck_bundle(folder / 'bundle', breakable=breakable)
        file = folder / 'parameters.yaml'
        file.write_text(f'/**:\n  ros__parameters:\n    frame_limit_s: {LIMIT_S}\n')
        command = [sys.executable, '-u', '-m', 'pruned_perception.cli.main', 'up', 'perception']
        command += [f'model:={bundle.path}', f'namespace:={namespace}', 'respawn:=true']
        self.process = subprocess.Popen(
            [*command, f'params_file:={file}'],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started: list[float] = []
        self.ended: list[tuple[float, str]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if re.search(r'started, process', line):
                self.started.append(time.monotonic())
            elif re.search(r'was ended by|ended with', line):
                self.ended.append((time.monotonic(), line.strip()))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def timed(observer: Observer, type_: Any, service: str, label: str = '') -> float:
    """Return the seconds that a service takes to answer."""
    client = observer.node.create_client(type_, f'{observer.tested}/{service}')
    observer.wait(client.service_is_ready, service)
    request = type_.Request()
    if label:
        request.transition.label = label
    start = time.monotonic()
    future = client.call_async(request)
    observer.wait(future.done, service)
    observer.node.destroy_client(client)
    return time.monotonic() - start


def measure(context: Any, number: int, breakable: bool, *, deactivate: bool) -> dict[str, float]:
    """Run one round; return what took how many seconds."""
    namespace = f'/stuck_{number}'
    observer = Observer(context, namespace)
    taken = {}
    with tempfile.TemporaryDirectory() as folder:
        up = Up(Path(folder), namespace, breakable)
        try:
            camera = observer.node.create_publisher(Image, 'image_raw', 10)
            observer.wait(camera.get_subscription_count, 'the subscription')
            observer.detect(camera, image_message(DARK))
            observer.history.clear()
            camera.publish(image_message(WHITE))
            start = time.monotonic()
            observer.status('worker', 'the frame in hand has taken', 2)
            taken['ERROR after'] = time.monotonic() - start
            taken['get_state beside it'] = timed(observer, GetState, 'get_state')
            if deactivate:
                taken['deactivate'] = timed(observer, ChangeState, 'change_state', 'deactivate')
                taken['get_state after that'] = timed(observer, GetState, 'get_state')
                return taken
            if breakable:
                observer.detect(camera, image_message(DARK))
                taken['detecting again, after the limit'] = time.monotonic() - start - LIMIT_S
                return taken
            again: Callable[[], bool] = lambda: len(up.started) > 1  # noqa: E731
            observer.wait(again, 'the new process')
            taken['ended, after the limit'] = up.ended[0][0] - start - LIMIT_S
            taken['started again, after the limit'] = up.started[1] - start - LIMIT_S
            observer.detect(camera, image_message(DARK))
            taken['detecting again, after the limit'] = time.monotonic() - start - LIMIT_S
            return taken
        finally:
            up.stop()
            observer.close()


def main() -> int:
    """Print the longest and the median of each time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--busy', type=int, default=0)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--breakable', action='store_true')
    args = parser.parse_args()
    context = new_context()
    busy = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(args.busy)]
    found: dict[str, list[float]] = {}
    try:
        for number in range(2 * args.rounds):
            taken = measure(context, number, args.breakable, deactivate=number % 2 == 1)
            for what, seconds in taken.items():
                found.setdefault(what, []).append(seconds)
    finally:
        for process in busy:
            process.kill()
    load = Path('/proc/loadavg').read_text().split()[0]
    print(f'{args.busy} busy processes, load {load}, limit {LIMIT_S:g} s; seconds, n: median, most')
    for what, values in found.items():
        print(f'{what:34} {len(values):2}: {np.median(values):6.2f} {max(values):6.2f}')
    rclpy.try_shutdown(context=context)
    return 0


if __name__ == '__main__':
    sys.exit(main())
