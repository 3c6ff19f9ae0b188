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

"""What watching the certificate costs the frames: the node with the dense net beside it, or not.

Both are the perception node on frames of a camera process, by turns: pairs, as in `overhead`. The
figures are the ratios of a pair's end-to-end latencies, as an outside subscriber saw them, at
median and 99th percentile. What the node's own thread does for a frame is measured alone, too.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pruned_perception.benchmark.camera import synthetic_frame
from pruned_perception.benchmark.environment import environment
from pruned_perception.benchmark.overhead import (
    PERCEPTION,
    Run,
    Setup,
    model_parameters,
    ratio,
    run_node,
)
from pruned_perception.benchmark.session import private_domain, ros_session
from pruned_perception.bundle import Bundle, load_member, resolve_model
from pruned_perception.errors import UserError
from pruned_perception.inference.detector import Detector
from pruned_perception.nodes import transport
from pruned_perception.nodes.shadow import Shadow

PERCENTILES = ('p50', 'p90', 'p99')
_OFFERS, _DRAWN = 5000, 20
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Offers:
    """Microseconds of the node's own thread for a frame after its detections were published."""

    not_drawn_p50: float
    not_drawn_p99: float
    drawn_p50: float
    drawn_p99: float


def measure(
    setup: Setup, share: float, on_run: Callable[[Run, bool], None] = lambda *_: None
) -> dict[str, Any]:
    """Run all pairs, calling `on_run(run, watched)` after each run; return the result as JSON.

    Raises:
        UserError: the member cannot be watched, or no frame was compared in any run.
    """
    bundle = load_member(resolve_model(setup.model), setup.member)
    Shadow(bundle, share, '')  # what cannot be watched is said before anything runs
    os.environ.update(private_domain())
    if setup.profile:
        os.environ.update(transport.environment(os.environ))
    runs: dict[bool, list[Run]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder, ros_session('watch_benchmark') as session:
        for pair in range(setup.pairs):
            for watched in (True, False) if pair % 2 == 0 else (False, True):
                parameters = model_parameters(setup) | {'watch_share': share if watched else 0.0}
                name = f'/pair_{pair}_{"watched" if watched else "alone"}'
                run = run_node(session, PERCEPTION, parameters, setup, Path(folder), name)
                runs[watched].append(run)
                on_run(run, watched)
    if not sum(run.compared for run in runs[True]):
        skipped = sum(run.skipped for run in runs[True])
        raise UserError(
            f'no frame was compared ({skipped} found no time): what watching costs cannot be told; '
            'give more --frames, or a machine with time left'
        )
    return {
        'benchmark': 'watch',
        'clock': 'system',
        'environment': environment(),
        'configuration': {**asdict(setup), 'share': share},
        'model': {'name': bundle.name, 'sha256': bundle.sha256},
        'offers_us': asdict(offers(bundle, setup)),
        'runs': [
            {**asdict(run), 'watched': watched, 'balanced': run.balanced}
            for watched, each in runs.items()
            for run in each
        ],
        'ratio': {
            name: asdict(
                ratio(
                    [getattr(run.e2e_receive, name) for run in runs[True]],
                    [getattr(run.e2e_receive, name) for run in runs[False]],
                )
            )
            for name in PERCENTILES
        },
    }


def offers(bundle: Bundle, setup: Setup) -> Offers:
    """Return what handing frames over costs, of frames that are not drawn and of such that are."""
    image = synthetic_frame(0, setup.height, setup.width)
    detections, _ = Detector(bundle).detect(image, 'bgr')
    found = []
    for share, number in ((1e-9, _OFFERS), (1.0, _DRAWN)):
        shadow = Shadow(bundle, share, '')
        certified = replace(shadow.claim.settings)  # equal, not the same: as in the node
        shadow.start()
        taken = []
        try:
            for done in range(number):
                start = time.perf_counter_ns()
                shadow.offer(image, 'bgr', detections, certified, hurried=False)
                taken.append((time.perf_counter_ns() - start) / 1e3)
                end = time.monotonic() + _PATIENCE_S
                while share == 1.0 and shadow.state().compared <= done:
                    if time.monotonic() > end:
                        raise UserError(f'the dense net does not answer: {shadow.state().trouble}')
                    time.sleep(0.005)
        finally:
            shadow.stop()
        found += [float(each) for each in np.percentile(taken, [50, 99])]
    return Offers(*found)
