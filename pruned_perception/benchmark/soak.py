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

"""Hours in minutes: whether memory, descriptors and threads of the node grow while it runs.

Memory has a trend where the least-squares line through the means of ten equal parts of the run
(the first tenth left out: caches fill) has a slope whose interval, by Student's t, is above zero.
Means of parts rather than samples, since neighbouring samples are not independent.

With a control, a node of rclpy alone that publishes as many diagnostics runs beside it: what that
grows by is the middleware's, and what the node grows by beyond it is ours.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pruned_perception.benchmark.camera import camera_command
from pruned_perception.benchmark.children import Child, Children
from pruned_perception.benchmark.environment import environment
from pruned_perception.benchmark.overhead import PERCEPTION
from pruned_perception.benchmark.series import START_S, wait_for
from pruned_perception.benchmark.session import private_domain, ros_session
from pruned_perception.bundle import load_member, resolve_model
from pruned_perception.errors import UserError
from pruned_perception.inference.intervals import student_quantile
from pruned_perception.nodes import transport
from pruned_perception.nodes.up import node_command

PARTS = 10
LEFT_OUT = 0.1  # of the run, at its start


@dataclass(frozen=True)
class Setup:
    """What is run, for how long and at which rate."""

    model: str
    member: str = ''
    threads: int = 1
    minutes: float = 30.0
    rate: float = 30.0
    every: float = 2.0
    """Seconds between two looks at the process."""
    control: bool = False
    """Look at a bare publisher beside the node, too."""


@dataclass(frozen=True)
class Sample:
    """The node's process at one moment; seconds since its first detection, MB of 10⁶ bytes."""

    seconds: float
    resident_mb: float
    descriptors: int
    threads: int
    detections: int


@dataclass(frozen=True)
class Trend:
    """Slope of a quantity per hour, and its 95 % interval."""

    per_hour: float
    interval: tuple[float, float]


def measure(setup: Setup, on_sample: Callable[[Sample], None] = lambda _: None) -> dict[str, Any]:
    """Run camera and node; return the samples and what they say, as JSON values.

    Raises UserError where a process ends before its time, or the run is too short to say anything.
    """
    bundle = load_member(resolve_model(setup.model), setup.member)
    os.environ.update(private_domain())
    os.environ.update(transport.environment(os.environ))
    samples: list[Sample] = []
    beside: list[Sample] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ros_session('soak_benchmark') as session,
        Children(Path(folder), os.environ) as children,
    ):
        from rclpy.qos import QoSProfile
        from vision_msgs.msg import Detection2DArray

        arrived = [0]

        def count(_: Detection2DArray) -> None:
            arrived[0] += 1

        session.node.create_subscription(
            Detection2DArray, '/soak/detections', count, QoSProfile(depth=100)
        )
        parameters = {'model': setup.model, 'member': setup.member, 'threads': setup.threads}
        node = children.start('node', node_command(PERCEPTION, '/soak', parameters))
        control = None
        if setup.control:
            script = Path(__file__).with_name('bare_publisher.py')
            control = children.start('control', [sys.executable, script, '/soak/bare_diagnostics'])
        frames = round((60 * setup.minutes + START_S) * setup.rate)
        camera = children.start(
            'camera', camera_command('/soak/image_raw', rate=setup.rate, frames=frames)
        )
        wait_for(session, lambda: arrived[0] > 0, START_S, node, 'no detection')
        start = time.monotonic()
        while session.running and time.monotonic() - start < 60 * setup.minutes:
            session.spin_for(setup.every)
            for child in filter(None, (node, camera, control)):
                child.require_alive()
            samples.append(_sample(node, time.monotonic() - start, arrived[0]))
            if control is not None:
                beside.append(_sample(control, samples[-1].seconds, 0))
            on_sample(samples[-1])
    found = _said(samples, setup)
    return {
        'benchmark': 'soak',
        'environment': environment(),
        'configuration': asdict(setup),
        'model': {'name': bundle.name, 'sha256': bundle.sha256},
        'samples': [asdict(each) for each in samples],
        'detections_per_s': samples[-1].detections / samples[-1].seconds,
        **found,
        'control': _said(beside, setup) if beside else None,
    }


def _said(samples: Sequence[Sample], setup: Setup) -> dict[str, Any]:
    """Return the trend of the memory and the ranges; raise UserError of too few samples."""
    steady = [each for each in samples if each.seconds >= LEFT_OUT * samples[-1].seconds]
    if len(steady) < 2 * PARTS:
        raise UserError(
            f'{len(samples)} samples in {setup.minutes:g} minutes are too few for a trend: run '
            'longer, or look more often (--every)'
        )
    return {
        'memory_trend': asdict(trend([s.seconds for s in steady], [s.resident_mb for s in steady])),
        **{
            name: _range([getattr(each, name) for each in steady])
            for name in ('resident_mb', 'descriptors', 'threads')
        },
    }


def trend(seconds: ArrayLike, values: ArrayLike) -> Trend:
    """Return the slope per hour of `values` (n,) over `seconds` (n,), n ≥ 2 · PARTS."""
    times = [float(part.mean()) for part in np.array_split(np.asarray(seconds, float), PARTS)]
    # From the first on: means of what is constant would differ by their rounding, and have a trend.
    risen = np.asarray(values, float) - np.asarray(values, float)[0]
    means = [float(part.mean()) for part in np.array_split(risen, PARTS)]
    x, y = np.array(times) / 3600, np.array(means)
    x -= x.mean()
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    freedom = PARTS - 2
    error = float(np.sqrt(rest @ rest / freedom / (x @ x)))
    half = student_quantile(0.975, freedom) * error
    return Trend(slope, (slope - half, slope + half))


def _sample(child: Child, seconds: float, detections: int) -> Sample:
    proc = Path('/proc') / str(child.process.pid)
    status = dict(
        line.split(':', 1) for line in (proc / 'status').read_text().splitlines() if ':' in line
    )
    return Sample(
        seconds=seconds,
        resident_mb=int(status['VmRSS'].split()[0]) * 1024 / 1e6,
        descriptors=len(list((proc / 'fd').iterdir())),
        threads=int(status['Threads']),
        detections=detections,
    )


def _range(values: Sequence[float]) -> list[float]:
    return [min(values), max(values)]
