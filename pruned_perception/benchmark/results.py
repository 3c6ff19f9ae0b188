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

"""From the files of one run (records, timings, totals) to its section of latency.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.errors import UserError
from pruned_perception.inference.frame_times import FRAME_QUANTITIES, STAGES
from pruned_perception.inference.latency import DROP_REASONS, NS_PER_MS, Summary, summarize

WARM_UP = 10
"""Frames at the start of a run that are left out of the statistics."""

PATH = ('age_at_receipt', *STAGES, 'delivery')
"""Disjoint parts of e2e_receive, in the order of a frame's way."""


@dataclass(frozen=True)
class Frames:
    """Per frame, in ms, NaN where not known: quantity → array of shape (frames,).

    `stamps` are the header stamps in ns, `received_s` the times of receipt of the detections,
    in seconds since the first.
    """

    stamps: NDArray[np.int64]
    received_s: NDArray[np.float64]
    quantities: dict[str, NDArray[np.float64]]

    def without_warm_up(self) -> Frames:
        """Leave the first WARM_UP frames out."""
        return Frames(
            self.stamps[WARM_UP:],
            self.received_s[WARM_UP:],
            {name: values[WARM_UP:] for name, values in self.quantities.items()},
        )

    def typical(self, parts: Sequence[str]) -> dict[str, float]:
        """Return the mean of `parts` over the frames near the median of e2e_receive, in ms.

        Near is between the 40th and the 60th percentile. Medians of parts do not add up to the
        median of the whole; these means do, nearly.
        """
        whole = self.quantities['e2e_receive']
        known = np.isfinite(np.stack([whole, *(self.quantities[part] for part in parts)]))
        whole = np.where(known.all(axis=0), whole, np.nan)
        if np.isnan(whole).all():
            return dict.fromkeys(parts, 0.0)
        low, high = np.nanpercentile(whole, [40, 60])
        near = (whole >= low) & (whole <= high)
        return {part: float(self.quantities[part][near].mean()) for part in parts}

    def summary(self, quantity: str) -> Summary | None:
        """Return the statistics of one quantity with bootstrap intervals."""
        values = self.quantities[quantity]
        return summarize(values[np.isfinite(values)])


def read_frames(records: Path, timings: Path) -> Frames:
    """Join what `monitor --records` and the node's `timings_file` wrote, by stamp.

    `e2e_receive` = receipt by the monitor − stamp; `delivery` = e2e_receive − e2e_publish;
    `overhead` = e2e_receive − inference.

    Raises:
        UserError: a file is missing or damaged.
    """
    seen = {line['stamp']: line['received'] for line in read_json_lines(records)}
    own = {line['stamp_ns']: line for line in read_json_lines(timings)}
    stamps = np.array(sorted(seen, key=lambda stamp: seen[stamp]), np.int64)
    received = np.array([seen[stamp] for stamp in stamps.tolist()], np.int64)
    columns = {
        name: np.array([_ms(own.get(stamp, {}).get(name)) for stamp in stamps.tolist()], float)
        for name in FRAME_QUANTITIES
    }
    ages = (received - stamps) / NS_PER_MS
    columns['e2e_receive'] = np.where((stamps > 0) & (ages >= 0), ages, np.nan)
    columns['delivery'] = columns['e2e_receive'] - columns['e2e_publish']
    columns['overhead'] = columns['e2e_receive'] - columns['inference']
    start = received[0] if len(received) else 0
    return Frames(stamps, (received - start) / 1e9, columns)


def published_stamps(timings: Path) -> set[int]:
    """Return the header stamps, in ns, of the frames in a node's `timings_file`.

    Raises:
        UserError: the file is missing or damaged.
    """
    return {line['stamp_ns'] for line in read_json_lines(timings)}


def run_section(
    name: str,
    frames: Frames,
    totals: Mapping[str, Any],
    *,
    clock: str,
    description: str,
    sent: int,
    played_s: float | None = None,
    behind_ms: float | None = None,
) -> dict[str, Any]:
    """Return a run's section of latency.json.

    Args:
        name: of the run.
        frames: all frames; the warm-up is left out here.
        totals: the monitor's totals of the camera; its node was started for this run.
        clock: what the ages are measured by: system, sim or restamped.
        description: what runs beside the node, for people.
        sent: frames sent to the node, which its counters are balanced against.
        played_s: how long a player took to send them; None without a player.
        behind_ms: how late the player was at worst.
    """
    measured = frames.without_warm_up()
    quantities = {quantity: measured.summary(quantity) for quantity in measured.quantities}
    counters = totals['counters']
    published = counters.get('published', 0)
    drops = {reason: counters.get(reason, 0) for reason in DROP_REASONS}
    lost_after = totals['loss_out'] or 0
    return {
        'name': name,
        'description': description,
        'model': totals['model'],
        'clock': clock,
        'warm_up_frames': min(WARM_UP, len(frames.stamps)),
        'latency_ms': {
            quantity: asdict(summary)
            for quantity, summary in quantities.items()
            if summary is not None
        },
        'invalid_stamps': totals['invalid_stamps'],
        'frames': {
            'sent': sent,
            'published': published,
            **drops,
            'middleware_loss': sent - published - sum(drops.values()),
            'received': totals['received'],
            'loss_after_the_node': totals['loss_out'],
        },
        'cpu_percent': totals['cpu_percent'],
        'rss_mib': totals['rss_mib'],
        'player_behind_ms': behind_ms,
        'basic_performance_metrics': ros2_benchmark_metrics(
            measured, sent, sent - published + lost_after, sent / played_s if played_s else None
        ),
    }


def ros2_benchmark_metrics(
    frames: Frames, sent: int, missed: int, playback_rate: float | None
) -> dict[str, float | int | None]:
    """Return ros2_benchmark's basic performance metrics, under its own key names.

    Only those whose meaning is the same here; frames are the measured ones, without warm-up,
    but for the numbers of frames sent and missed.
    """
    e2e = frames.quantities['e2e_receive']
    e2e = e2e[np.isfinite(e2e)]
    times = frames.received_s * 1e3
    jitter = np.abs(np.diff(np.diff(times)))
    span = float(times[-1] - times[0]) if len(times) > 1 else 0.0

    def of(values: NDArray[np.float64], statistic: Any) -> float | None:
        return float(statistic(values)) if values.size else None

    return {
        'Delta between First & Last Received Frames (ms)': span,
        'Mean Playback Frame Rate (fps)': playback_rate,
        'Mean Frame Rate (fps)': (len(times) - 1) / span * 1e3 if span else None,
        '# of Missed Frames': missed,
        '# of Frames Sent': sent,
        'Max. End-to-End Latency (ms)': of(e2e, np.max),
        'Min. End-to-End Latency (ms)': of(e2e, np.min),
        'Mean End-to-End Latency (ms)': of(e2e, np.mean),
        'Max. Frame-to-Frame Jitter (ms)': of(jitter, np.max),
        'Min. Frame-to-Frame Jitter (ms)': of(jitter, np.min),
        'Mean Frame-to-Frame Jitter (ms)': of(jitter, np.mean),
        'Frame-to-Frame Jitter Std. Deviation (ms)': of(jitter, np.std),
    }


def last_totals(monitor_output: Path, namespace: str) -> dict[str, Any]:
    """Return a camera's totals from the output of `monitor --json`.

    Raises:
        UserError: the monitor did not come to its end.
    """
    for line in reversed(read_json_lines(monitor_output)):
        for camera in line.get('totals', ()):
            if camera['namespace'] == namespace:
                return dict(camera)
    raise UserError(f'{monitor_output} has no totals of {namespace}: did the monitor end early?')


def read_json_lines(file: Path) -> list[dict[str, Any]]:
    """Read a JSON object a line; a last line that was cut off is left out.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        lines: Sequence[str] = file.read_text().splitlines()
    except OSError as error:
        raise UserError(f'cannot read {file}: {error.strerror}') from error
    objects = []
    for number, line in enumerate(lines, 1):
        try:
            objects.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise UserError(f'{file}, line {number}: {error}') from error
    return objects


def _ms(nanoseconds: int | None) -> float:
    return float('nan') if nanoseconds is None else nanoseconds / NS_PER_MS
