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

"""From the start of the process to the first detection, against a bare script; memory.

The camera runs already. The bare script (`bare_start.py`) imports the same libraries, loads the
model and creates a node, and is `ready`: it has not met the camera yet, so 1.0 is out of reach.
Then it waits for an image, which is the least that any node has to do before its first detection.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pruned_perception.benchmark import bare_start
from pruned_perception.benchmark.camera import camera_command
from pruned_perception.benchmark.children import Child, Children
from pruned_perception.benchmark.environment import environment
from pruned_perception.benchmark.overhead import PERCEPTION, ratio
from pruned_perception.benchmark.series import START_S, megabytes, wait_for
from pruned_perception.benchmark.session import Session, private_domain, ros_session
from pruned_perception.bundle import load_member, resolve_model
from pruned_perception.errors import UserError
from pruned_perception.nodes import transport
from pruned_perception.nodes.up import node_command


@dataclass(frozen=True)
class Setup:
    """What is run; each node runs on for `seconds` after its first detection."""

    model: str
    member: str = ''
    threads: int = 1
    pairs: int = 6
    seconds: float = 5.0


@dataclass(frozen=True)
class Pair:
    """One start of each; seconds since the process was started, MB of 10⁶ bytes."""

    first_detection_s: float
    bare_s: float
    """Until the bare script is ready."""
    bare_image_s: float
    """Until it has the first image."""
    bare_mb: float
    """VmRSS of the bare script when it is ready: the least that these libraries take."""
    resident_mb: float
    """VmRSS after the run; shared memory of the middleware included."""
    resident_peak_mb: float
    """VmHWM."""
    torch: bool
    """Whether a file of PyTorch is mapped into the node's process."""


def measure(setup: Setup, on_pair: Callable[[Pair], None] = lambda _: None) -> dict[str, Any]:
    """Start both `setup.pairs` times in turns; return the result as JSON values."""
    bundle = load_member(resolve_model(setup.model), setup.member)
    os.environ.update(private_domain())
    os.environ.update(transport.environment(os.environ))
    pairs = []
    with tempfile.TemporaryDirectory() as folder, ros_session('startup_benchmark') as session:
        # One start of each that does not count: afterwards the disk's cache is warm for both.
        for k in range(setup.pairs + 1):
            with Children(Path(folder), os.environ) as children:
                namespace = f'/start_{k}'
                topic = f'{namespace}/image_raw'
                camera = children.start(
                    f'camera_{k}', camera_command(topic, subscribers=0, frames=1000000)
                )
                _wait_for_camera(session, camera, topic)
                first = k % 2 == 0
                script = bare(bundle.onnx_path, topic) if first else {}
                figures = _start_node(session, children, namespace, setup, k)
                script = script or bare(bundle.onnx_path, topic)
            if k:
                pairs.append(Pair(**script, **figures))
                on_pair(pairs[-1])
    return {
        'benchmark': 'startup',
        'environment': environment(),
        'configuration': asdict(setup),
        'model': {'name': bundle.name, 'sha256': bundle.sha256},
        'pairs': [asdict(pair) for pair in pairs],
        'start_ratio': asdict(
            ratio([pair.first_detection_s for pair in pairs], [pair.bare_s for pair in pairs])
        ),
        'image_ratio': asdict(
            ratio([pair.first_detection_s for pair in pairs], [pair.bare_image_s for pair in pairs])
        ),
    }


def _wait_for_camera(session: Session, camera: Child, topic: str) -> None:
    """Wait until the camera has been publishing for a moment: its own start is not to be timed."""
    wait_for(
        session,
        lambda: session.node.count_publishers(topic) > 0,
        START_S,
        camera,
        'the camera did not start',
    )
    session.spin_for(1.0)


def bare(onnx_path: Path, topic: str) -> dict[str, Any]:
    """Start the bare script; return the figures of it that `Pair` has.

    Raises UserError where it fails, or gets no image.
    """
    start = time.monotonic()
    moments, resident = [], 0.0
    with subprocess.Popen(
        [sys.executable, str(bare_start.__file__), str(onnx_path), topic],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **transport.without_camera(os.environ)},
    ) as process:
        timer = threading.Timer(START_S, process.kill)
        timer.start()
        assert process.stdout is not None
        for said in ('ready', 'image'):
            if process.stdout.readline().strip() != said:
                break
            moments.append(time.monotonic() - start)
            resident = resident or megabytes(process.pid)['VmRSS']
        timer.cancel()
    if len(moments) < 2:
        raise UserError(f'the bare script failed with status {process.returncode}')
    return {'bare_s': moments[0], 'bare_image_s': moments[1], 'bare_mb': resident}


def _start_node(
    session: Session, children: Children, namespace: str, setup: Setup, index: int
) -> dict[str, Any]:
    from rclpy.qos import QoSProfile
    from vision_msgs.msg import Detection2DArray

    arrived: list[float] = []
    subscription = session.node.create_subscription(
        Detection2DArray,
        f'{namespace}/detections',
        lambda _: arrived.append(time.monotonic()),
        QoSProfile(depth=10),
    )
    parameters = {'model': setup.model, 'threads': setup.threads}
    parameters |= {'member': setup.member} if setup.member else {}
    start = time.monotonic()
    node = children.start(f'node_{index}', node_command(PERCEPTION, namespace, parameters))
    wait_for(session, lambda: bool(arrived), START_S, node, 'no detection')
    session.spin_for(setup.seconds)
    figures = {'first_detection_s': arrived[0] - start, **_memory(node)}
    children.stop(node)
    session.node.destroy_subscription(subscription)
    return figures


def _memory(child: Child) -> dict[str, Any]:
    pid = child.process.pid
    sizes = megabytes(pid)
    return {
        'resident_mb': sizes['VmRSS'],
        'resident_peak_mb': sizes['VmHWM'],
        'torch': 'torch' in Path(f'/proc/{pid}/maps').read_text(),
    }
