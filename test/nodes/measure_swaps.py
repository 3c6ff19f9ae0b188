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

"""Changes of the model under a stream of images: which frames got a result, of which model; memory.

    python test/nodes/measure_swaps.py [--swaps 1000] [--by model|active_member|both] [--rate 30]

A node process, a camera at `--rate` and a subscriber. `model`: the parameter is set to another
bundle on disk, again and again; `active_member`: a family under a budget changes its member. The
next change is asked for once the former has made its first result. Both models see the same image
and give it different scores, so that each result tells which of them made it, whatever the node
says. Beside it: as long a run without changes. The exit status is 1 where a frame that was received
had no result, one was out of order, or made by another model than `~/active_model` says.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import itertools
import json
import math
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the modules of the tests

import numpy as np
import rclpy
from rclpy.impl.implementation_singleton import rclpy_implementation
from ros_harness import LATCHED, NodeProcess, Observer, balanced, image_message, new_context
from sensor_msgs.msg import Image
from std_msgs.msg import String
from tiny_detector import square_image, write_tiny_bundle

GAINS = {'dense': 32.0, 'small': 60.0}
SCORES = {name: 1 / (1 + math.exp(-127 / gain)) for name, gain in GAINS.items()}
RCLError = rclpy_implementation.RCLError


@dataclass
class Found:
    """What happened to the frames of one run."""

    swaps: int
    seconds: float
    counts: dict[str, int]
    results: int
    out_of_order: int
    mixed: int
    """Results of another model than the one that the node says made them."""
    rss_mb: list[float] = field(repr=False)

    @property
    def clean(self) -> bool:
        """Whether each frame received has its result, in order, of the model that is named."""
        published = self.counts['received'] == self.counts['published']
        return published and not self.out_of_order and not self.mixed and balanced(self.counts)

    @property
    def memory(self) -> str:
        """Resident memory, in words: after a tenth of the run, and what was added by its end."""
        tenth = max(1, len(self.rss_mb) // 10)
        start = float(np.median(self.rss_mb[tenth : 2 * tenth] or self.rss_mb))
        end = float(np.median(self.rss_mb[-tenth:]))
        return f'{start:.1f} MB, {end - start:+.1f} MB by the end'


def write_family(folder: Path) -> Path:
    """Write two members that give one image different scores."""
    dense = write_tiny_bundle(folder / 'dense', name='dense', macs=2000, gain=GAINS['dense'])
    parent = {'name': dense.name, 'sha256': dense.sha256}
    write_tiny_bundle(folder / 'small', name='small', macs=1000, gain=GAINS['small'], parent=parent)
    return folder


def model_of(score: float) -> str:
    """Return the model that gives the image this score."""
    return min(SCORES, key=lambda name: abs(SCORES[name] - score))


def measure(
    context: Any, namespace: str, *, by: str, swaps: int, rate: float = 30.0, seconds: float = 0.0
) -> Found:
    """Run a node; change its model `swaps` times, or run for `seconds` without changes."""
    observer = Observer(context, namespace)
    made: list[tuple[int, str]] = []
    announced: list[tuple[int, str]] = []

    def on_model(message: Any) -> None:
        content = json.loads(message.data)
        if content['since'] is not None:
            since = content['since']['sec'] * 10**9 + content['since']['nanosec']
            announced.append((since, content['model']))

    observer.node.create_subscription(String, 'perception_node/active_model', on_model, LATCHED)
    with tempfile.TemporaryDirectory() as folder:
        family = write_family(Path(folder) / 'family')
        given = {'model': family / 'dense'} if by == 'model' else {'model': family}
        budget = {} if by == 'model' else {'latency_budget_ms': 1e6}
        node = NodeProcess(Path(folder) / 'log', 'perception_node', namespace, {**given, **budget})
        try:
            camera = observer.node.create_publisher(Image, 'image_raw', 10)
            observer.wait(camera.get_subscription_count, 'the subscription')
            message = image_message(square_image('red', 80, 40, 120))
            # Results that were published before the subscription matched are nobody's loss.
            observer.detect(camera, message)
            before = observer.settled_counts()
            observer.detections.clear()
            rss, asked, wanted, sampled = [], 0, 'dense', 0.0
            start = next_frame = time.monotonic()
            client = _client(observer)
            while asked < swaps or time.monotonic() < start + seconds:
                now = time.monotonic()
                if now >= next_frame:
                    stamp = time.time_ns()
                    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
                    with contextlib.suppress(RCLError):  # a busy machine: then it was not sent
                        camera.publish(message)
                    next_frame += 1 / rate
                observer.executor.spin_once(timeout_sec=max(0.0, next_frame - time.monotonic()))
                if swaps and announced and announced[-1][1] == wanted and asked < swaps:
                    wanted = 'small' if wanted == 'dense' else 'dense'
                    value = str(family / wanted) if by == 'model' else wanted
                    client(by, value)
                    asked += 1
                if now > sampled + 0.5:
                    sampled = now
                    rss.append(_resident_mb(node.process.pid))
            taken = time.monotonic() - start
            after = observer.settled_counts()
            assert node.process.poll() is None, node.output
        finally:
            node.stop()
            observer.close()
    made = [
        (each.header.stamp.sec * 10**9 + each.header.stamp.nanosec, each)
        for each in observer.detections
    ]
    stamps = [stamp for stamp, _ in made]
    mixed = 0
    since = [stamp for stamp, _ in announced]
    for stamp, array in made:
        [detection] = array.detections
        who = announced[max(0, bisect.bisect_right(since, stamp) - 1)][1]
        mixed += model_of(detection.results[0].hypothesis.score) != who
    out_of_order = sum(b <= a for a, b in itertools.pairwise(stamps))
    counts = {key: count - before[key] for key, count in after.items()}
    return Found(asked, taken, counts, len(made), out_of_order, mixed, rss)


def _client(observer: Observer) -> Any:
    """Return a function that sets a string parameter without waiting for the answer."""
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    client = observer.node.create_client(SetParameters, f'{observer.tested}/set_parameters')
    observer.wait(client.service_is_ready, 'set_parameters')

    def set_parameter(name: str, value: str) -> None:
        parameter = Parameter(name, value=value).to_parameter_msg()
        client.call_async(SetParameters.Request(parameters=[parameter]))

    return set_parameter


def _resident_mb(pid: int) -> float:
    pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> int:
    """Print what was found; 1 where a frame was lost, out of order or mixed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--swaps', type=int, default=1000)
    parser.add_argument('--by', choices=('model', 'active_member', 'both'), default='both')
    parser.add_argument('--rate', type=float, default=30.0)
    args = parser.parse_args()
    context = new_context()
    clean = True
    kinds = ('model', 'active_member') if args.by == 'both' else (args.by,)
    share = args.swaps // len(kinds)
    for by in kinds:
        found = measure(context, f'/swaps_{by}', by=by, swaps=share, rate=args.rate)
        still = measure(
            context, f'/still_{by}', by=by, swaps=0, rate=args.rate, seconds=found.seconds
        )
        for each in (found, still):
            counts = ', '.join(f'{key} {value}' for key, value in each.counts.items())
            print(
                f'{by}: {each.swaps} changes in {each.seconds:.0f} s at {args.rate:g} Hz: '
                f'{counts}; {each.results} results, {each.out_of_order} out of order, '
                f'{each.mixed} of another model than named; memory {each.memory}',
                flush=True,
            )
        clean = clean and found.clean
    rclpy.try_shutdown(context=context)
    return 0 if clean else 1


if __name__ == '__main__':
    sys.exit(main())
