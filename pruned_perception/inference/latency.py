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

"""Latency, summed up: windows of what `FrameTimes` says of each frame, and their statistics.

Besides, `period` is the time between receipts and `jitter` = |period_i − period_{i−1}|.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pruned_perception.inference.frame_times import FRAME_QUANTITIES, FrameTimes

INTERVALS = ('period', 'jitter')
QUANTITIES = (*FRAME_QUANTITIES, *INTERVALS)
DROP_REASONS = ('superseded', 'stale', 'error')

NS_PER_MS = 1e6
CONFIDENCE = 0.95
RESAMPLES = 1000
_RESAMPLE_VALUES = 1 << 20  # values drawn at once, to bound the bootstrap's memory


@dataclass(frozen=True)
class Summary:
    """Statistics of one quantity over a window; milliseconds.

    Percentiles interpolate linearly between order statistics. The intervals are percentile
    bootstrap intervals of 95 % confidence, None where not asked for or where n < 2.
    """

    n: int
    min: float
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float
    p50_interval: tuple[float, float] | None = None
    p90_interval: tuple[float, float] | None = None


def summarize(
    milliseconds: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> Summary | None:
    """Return the statistics of some values in milliseconds; None where there are none.

    `resamples` is the number of bootstrap resamples, 0 for no intervals.
    """
    values = np.asarray(milliseconds, np.float64)
    if not values.size:
        return None
    p50, p90, p95, p99 = np.percentile(values, [50, 90, 95, 99])
    intervals: list[tuple[float, float] | None] = [None, None]
    if resamples and values.size > 1:
        intervals = [*bootstrap_percentiles(values, (50, 90), resamples=resamples, seed=seed)]
    return Summary(
        n=int(values.size),
        min=float(values.min()),
        mean=float(values.mean()),
        p50=float(p50),
        p90=float(p90),
        p95=float(p95),
        p99=float(p99),
        max=float(values.max()),
        p50_interval=intervals[0],
        p90_interval=intervals[1],
    )


def bootstrap_percentiles(
    values: NDArray[np.float64],
    percentiles: Sequence[float],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> list[tuple[float, float]]:
    """Return a percentile bootstrap interval (Efron 1979) for each of the percentiles."""
    rng = np.random.default_rng(seed)
    rows = max(1, _RESAMPLE_VALUES // values.size)
    estimates = []
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = values[rng.integers(0, values.size, (count, values.size))]
        estimates.append(np.percentile(drawn, percentiles, axis=1))
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(np.concatenate(estimates, axis=1), [tail, 100 - tail], axis=1)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


@dataclass(frozen=True)
class Window:
    """What was recorded between two calls of `LatencyRecorder.take`."""

    seconds: float
    samples: dict[str, NDArray[np.float64]] = field(repr=False)
    """quantity → milliseconds, in the order of recording."""
    received: int
    published: int
    drops: dict[str, int]
    """reason → frames; every reason of DROP_REASONS is there."""
    invalid: dict[str, int]
    """age → frames whose age was negative or whose stamp was 0."""
    deadline_misses: int
    consecutive_misses_ms: float
    """How long the budget has been missed without a frame in time, up to the last frame."""

    @property
    def deadline_miss_rate(self) -> float | None:
        """Share of published frames over the budget; None without frames."""
        return self.deadline_misses / self.published if self.published else None

    def summary(self, quantity: str) -> Summary | None:
        """Return the statistics of one quantity; None where nothing was recorded."""
        return summarize(self.samples.get(quantity, ()), resamples=0)


class LatencyRecorder:
    """Collects the times of frames, window by window; safe for use by several threads.

    `budget_ms` is the latency budget (`latency_budget_ms`), None for none. A frame misses it
    where its `e2e_publish`, or without a valid stamp its t_pub − t_rx, is longer.
    """

    def __init__(self, budget_ms: float | None = None) -> None:
        self.budget_ms = budget_ms
        self._lock = threading.Lock()
        self._last_rx: int | None = None
        self._last_period: int | None = None
        self._missing_since: int | None = None
        self._missing_ms = 0.0
        self._clear()

    def receive(self, t_rx: int) -> None:
        """Count a frame at its receipt, monotonic nanoseconds."""
        with self._lock:
            self._received += 1
            if self._last_rx is not None:
                period = t_rx - self._last_rx
                self._add('period', period)
                if self._last_period is not None:
                    self._add('jitter', abs(period - self._last_period))
                self._last_period = period
            self._last_rx = t_rx

    def drop(self, reason: str) -> None:
        """Count a received frame that is not published; `reason` is one of DROP_REASONS."""
        if reason not in DROP_REASONS:
            raise ValueError(f'drop reason {reason!r} is none of {", ".join(DROP_REASONS)}')
        with self._lock:
            self._drops[reason] += 1

    def publish(self, frame: FrameTimes) -> None:
        """Record a published frame."""
        with self._lock:
            self._published += 1
            for quantity in (*FRAME_QUANTITIES, 'processing'):
                nanoseconds = getattr(frame, quantity)
                if nanoseconds is None:
                    self._invalid[quantity] += 1
                else:
                    self._add(quantity, nanoseconds)
            if self.budget_ms is not None:
                total = frame.e2e_publish
                self._judge(frame.t_pub - frame.t_rx if total is None else total, frame.t_pub)

    def restart_intervals(self) -> None:
        """Forget the last receipt: the next one starts `period` and `jitter` anew."""
        with self._lock:
            self._last_rx = self._last_period = None

    def take(self) -> Window:
        """Return what was recorded since the last call, and start a new window."""
        with self._lock:
            now = time.monotonic_ns()
            window = Window(
                seconds=(now - self._window_start) / 1e9,
                samples={
                    name: np.array(values, np.float64) / NS_PER_MS
                    for name, values in self._samples.items()
                },
                received=self._received,
                published=self._published,
                drops={reason: self._drops[reason] for reason in DROP_REASONS},
                invalid=dict(self._invalid),
                deadline_misses=self._misses,
                consecutive_misses_ms=self._missing_ms,
            )
            self._clear()
            return window

    def _clear(self) -> None:
        self._samples: dict[str, list[int]] = {}
        self._received = self._published = self._misses = 0
        self._drops: Counter[str] = Counter()
        self._invalid: Counter[str] = Counter()
        self._window_start = time.monotonic_ns()

    def _add(self, quantity: str, nanoseconds: int) -> None:
        self._samples.setdefault(quantity, []).append(nanoseconds)

    def _judge(self, total: int, t_pub: int) -> None:
        assert self.budget_ms is not None
        if total / NS_PER_MS <= self.budget_ms:
            self._missing_since, self._missing_ms = None, 0.0
            return
        self._misses += 1
        if self._missing_since is None:
            self._missing_since = t_pub
        self._missing_ms = (t_pub - self._missing_since) / NS_PER_MS


def merge(windows: Sequence[Window]) -> Window:
    """Return consecutive windows as one."""
    names = dict.fromkeys(name for window in windows for name in window.samples)
    drops: Counter[str] = Counter(dict.fromkeys(DROP_REASONS, 0))
    invalid: Counter[str] = Counter()
    for window in windows:
        drops.update(window.drops)
        invalid.update(window.invalid)
    return Window(
        seconds=math.fsum(window.seconds for window in windows),
        samples={
            name: np.concatenate([w.samples[name] for w in windows if name in w.samples])
            for name in names
        },
        received=sum(window.received for window in windows),
        published=sum(window.published for window in windows),
        drops=dict(drops),
        invalid=dict(invalid),
        deadline_misses=sum(window.deadline_misses for window in windows),
        consecutive_misses_ms=windows[-1].consecutive_misses_ms if windows else 0.0,
    )
