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

"""Latency of networks in the engine alone, several of them interleaved in one run.

Timings of different runs on one machine differ by more than the networks do (clock, neighbours,
heat), so that only what was measured by turns is compared, as ratios round by round.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception._tables import Table
from pruned_perception.benchmark.environment import environment
from pruned_perception.bundle import Bundle, is_family, load_bundle, load_family
from pruned_perception.errors import UserError
from pruned_perception.inference.engine import Session, create_session
from pruned_perception.inference.intervals import median_interval_if_any
from pruned_perception.inference.latency import Summary, summarize
from pruned_perception.inference.providers import CPU, Execution
from pruned_perception.inference.timing import by_turns

if TYPE_CHECKING:
    import onnxruntime

_TYPES = {
    'tensor(float)': np.float32,
    'tensor(float16)': np.float16,
    'tensor(uint8)': np.uint8,
    'tensor(int8)': np.int8,
    'tensor(int64)': np.int64,
    'tensor(int32)': np.int32,
}


@dataclass(frozen=True)
class Network:
    """An ONNX file to measure; `macs` is None where nobody counted them."""

    name: str
    sha256: str
    macs: int | None
    model: bytes
    execution_provider: str = CPU
    """Where it is to run; see `inference.providers`."""


@dataclass(frozen=True)
class NetworkLatency:
    """Latency of one network, ms, and how it compares with the first of the run.

    `speedup` is the median over rounds of (median of the first network / median of this one),
    with a 95 % interval over rounds, from order statistics, None with fewer than six; so are the
    intervals of `latency`: of a round's p50 and p90. The SingleStream-style p90 is `latency.p90`.
    """

    network: Network
    latency: Summary
    speedup: float
    speedup_interval: tuple[float, float] | None
    execution: Execution | None = None


def load_networks(paths: Sequence[Path]) -> list[Network]:
    """Return the networks of bundles, families (all members) and bare ONNX files.

    Raises BundleError, or UserError where a file cannot be read.
    """
    networks: list[Network] = []
    for path in paths:
        if path.is_file() and path.suffix == '.onnx':
            networks.append(_bare(path))
        elif is_family(path):
            networks += [of_bundle(bundle) for bundle in load_family(path).members]
        else:
            networks.append(of_bundle(load_bundle(path)))
    return networks


def measure(
    networks: Sequence[Network],
    *,
    rounds: int = 20,
    runs: int = 20,
    threads: int = 1,
    allow_spinning: bool = False,
    seed: int = 0,
    on_progress: Callable[[float], None] = lambda share: None,
    clock: Callable[[], int] = time.monotonic_ns,
    sessions: Sequence[Session] | None = None,
) -> NDArray[np.float64]:
    """Return the durations in ms of the engine's runs, (networks, rounds, runs).

    They take turns, see `timing.by_turns`. On a machine with other work `clock` may be the
    process's own, `time.process_time_ns`. `sessions` are those of `open_sessions`, to say where the
    networks ran; by default they are opened here.
    Raises InferenceError or UserError where a network cannot be run.
    """
    rng = np.random.default_rng(seed)
    if sessions is None:
        sessions = open_sessions(networks, threads=threads, allow_spinning=allow_spinning)
    feeds = [
        random_inputs(session, network.name, rng)
        for session, network in zip(sessions, networks, strict=True)
    ]
    calls = [
        partial(session.run, None, each) for session, each in zip(sessions, feeds, strict=True)
    ]
    return by_turns(calls, rounds=rounds, runs=runs, rng=rng, on_progress=on_progress, clock=clock)


def open_sessions(
    networks: Sequence[Network], *, threads: int = 1, allow_spinning: bool = False
) -> list[Session]:
    """Return a session for each network, on the execution provider that it names."""
    return [
        create_session(
            network.model,
            threads=threads,
            allow_spinning=allow_spinning,
            name=network.name,
            execution_provider=network.execution_provider,
        )
        for network in networks
    ]


def compare(
    networks: Sequence[Network],
    times: NDArray[np.float64],
    sessions: Sequence[Session] = (),
) -> list[NetworkLatency]:
    """Return the statistics of `times` (networks, rounds, runs) in ms; the first is the baseline.

    All intervals are over rounds, whose runs resemble each other.
    """
    medians = np.median(times, axis=2)
    results = []
    for which, network in enumerate(networks):
        latency = summarize(times[which].ravel(), resamples=0)
        assert latency is not None
        latency = replace(
            latency,
            p50_interval=median_interval_if_any(medians[which]),
            p90_interval=median_interval_if_any(np.percentile(times[which], 90, axis=1)),
        )
        ratios = medians[0] / medians[which]
        interval = median_interval_if_any(ratios)
        execution = sessions[which].execution if sessions else None
        speedup = float(np.median(ratios))
        results.append(NetworkLatency(network, latency, speedup, interval, execution))
    return results


def as_json(results: Sequence[NetworkLatency], configuration: dict[str, Any]) -> dict[str, Any]:
    """Return results, configuration and environment as JSON values."""
    return {
        'environment': environment(),
        'configuration': configuration,
        'networks': [
            {
                'name': each.network.name,
                'sha256': each.network.sha256,
                'macs': each.network.macs,
                **({} if each.execution is None else each.execution.to_dict()),
                'latency_ms': asdict(each.latency),
                'single_stream_style_p90_ms': each.latency.p90,
                'speedup': each.speedup,
                'speedup_interval': each.speedup_interval and list(each.speedup_interval),
            }
            for each in results
        ],
    }


def latency_entry(
    results: Sequence[NetworkLatency], which: int, configuration: dict[str, Any]
) -> dict[str, Any]:
    """Return what the manifest of one of the networks says of its latency, as JSON values."""
    report = as_json(results, configuration)
    measured = report['networks'][which]
    return {
        'configuration': configuration,
        'compared_with': results[0].network.name,
        **{key: value for key, value in measured.items() if key not in ('name', 'sha256', 'macs')},
        'environment': report['environment'],
    }


def as_table(results: Sequence[NetworkLatency]) -> str:
    """Return a table for a terminal, a network a line."""
    header = (
        ' | MMAC:6.1f | p50 ms:10.3f | 95 % of p50 | p90 ms:10.3f | 95 % of p90 | p99 ms:10.3f'
        ' | × faster than the first | nodes'
    )
    rows = [
        (
            each.network.name,
            each.network.macs / 1e6 if each.network.macs else None,
            each.latency.p50,
            _interval(each.latency.p50_interval),
            each.latency.p90,
            _interval(each.latency.p90_interval),
            each.latency.p99,
            '{:.2f} [{:.2f}, {:.2f}]'.format(
                each.speedup, *(each.speedup_interval or (float('nan'),) * 2)
            ),
            '' if each.execution is None else each.execution.nodes_text,
        )
        for each in results
    ]
    return Table.under(header, rows).to_text()


def _interval(interval: tuple[float, float] | None) -> str:
    return '[{:7.3f}, {:7.3f}]'.format(*(interval or (float('nan'),) * 2))


def of_bundle(bundle: Bundle) -> Network:
    """Return the network of a bundle."""
    return Network(bundle.name, bundle.sha256, bundle.cost.macs or None, bundle.onnx_bytes)


def _bare(path: Path) -> Network:
    try:
        model = path.read_bytes()
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}') from error
    return Network(path.stem, hashlib.sha256(model).hexdigest(), None, model)


def random_inputs(
    session: onnxruntime.InferenceSession, name: str, rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Return random inputs of the graph's own shapes: bytes 0 … 255, or floats 0 … 1."""
    feeds: dict[str, NDArray[Any]] = {}
    for node in session.get_inputs():
        # Only the batch may be open: any other size would be a guess.
        shape = [1 if at == 0 and not isinstance(d, int) else d for at, d in enumerate(node.shape)]
        if node.type not in _TYPES or not all(isinstance(size, int) for size in shape):
            raise UserError(
                f'{name}: input {node.name} is {node.type} {node.shape}; only fixed shapes of '
                f'{", ".join(_TYPES)} can be measured'
            )
        if node.type in ('tensor(float)', 'tensor(float16)'):
            feeds[node.name] = rng.random(shape, np.float32).astype(_TYPES[node.type])
        else:
            feeds[node.name] = rng.integers(0, 256, shape).astype(_TYPES[node.type])
    return feeds
