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

"""The recorder keeps the definitions; the statistics are what they are called."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruned_perception.inference.frame_times import AGES, STAGES, FrameTimes, age_ns
from pruned_perception.inference.latency import (
    DROP_REASONS,
    LatencyRecorder,
    bootstrap_percentiles,
    merge,
    summarize,
)

MS = 1_000_000
durations = st.lists(st.floats(0, 1e4), min_size=1, max_size=60)


def frame(start: int = 0, stamp: int = 10**18, **changes: int) -> FrameTimes:
    """Return a frame whose stages last 1, 2, 3, 4 and 5 ms, received 7 ms after its stamp."""
    times = {
        't_rx': start,
        't_start': start + 1 * MS,
        't_pre': start + 3 * MS,
        't_inf': start + 6 * MS,
        't_post': start + 10 * MS,
        't_pub': start + 15 * MS,
        'stamp': stamp,
        'clock_rx': stamp + 7 * MS,
        'clock_pub': stamp + 22 * MS,
    }
    return FrameTimes(**{**times, **changes})


def test_stages_and_ages_are_those_defined():
    recorder = LatencyRecorder()
    recorder.publish(frame())
    samples = recorder.take().samples
    assert {name: values.tolist() for name, values in samples.items()} == {
        'queue_age': [1],
        'preprocess': [2],
        'inference': [3],
        'postprocess': [4],
        'publish': [5],
        'processing': [14],
        'age_at_receipt': [7],
        'e2e_publish': [22],
    }
    # Disjoint stages add up to what lies between receipt and publication.
    assert sum(samples[stage][0] for stage in STAGES) == 15
    assert samples['e2e_publish'][0] - samples['age_at_receipt'][0] == 15


def test_period_and_jitter():
    recorder = LatencyRecorder()
    for rx in (0, 30, 65, 90):
        recorder.receive(rx * MS)
    samples = recorder.take().samples
    assert samples['period'].tolist() == [30, 35, 25]
    assert samples['jitter'].tolist() == [5, 10]


def test_intervals_go_on_across_windows_and_start_anew_on_demand():
    recorder = LatencyRecorder()
    recorder.receive(0)
    recorder.take()
    recorder.receive(40 * MS)
    assert recorder.take().samples['period'].tolist() == [40]
    recorder.restart_intervals()
    recorder.receive(1000 * MS)
    assert 'period' not in recorder.take().samples


@pytest.mark.parametrize(
    'changes',
    [
        {'stamp': 0},
        {'clock_rx': 10**18 - 1, 'clock_pub': 10**18 - 1},
        {'clock_rx': 0, 'clock_pub': 0},
    ],
)
def test_invalid_ages_are_counted_and_left_out(changes):
    recorder = LatencyRecorder()
    recorder.publish(frame())
    recorder.publish(frame(**changes))
    window = recorder.take()
    assert window.published == 2
    assert window.invalid == {'age_at_receipt': 1, 'e2e_publish': 1}
    for age in AGES:
        assert len(window.samples[age]) == 1
    for stage in STAGES:
        assert len(window.samples[stage]) == 2


@given(st.integers(-5, 4 * 10**18), st.integers(0, 4 * 10**18))
def test_ages_are_never_negative(stamp, clock):
    valid = stamp > 0 and clock >= stamp
    assert age_ns(stamp, clock) == (clock - stamp if valid else None)


def test_an_age_of_zero_is_valid():
    assert age_ns(5, 5) == 0


def test_drops_are_counted_by_reason_and_other_reasons_refused():
    recorder = LatencyRecorder()
    for _ in range(4):
        recorder.receive(0)
    recorder.drop('superseded')
    recorder.drop('superseded')
    recorder.drop('stale')
    recorder.publish(frame())
    window = recorder.take()
    assert window.drops == {'superseded': 2, 'stale': 1, 'error': 0}
    assert window.received == window.published + sum(window.drops.values()) == 4
    with pytest.raises(ValueError, match="'lost' is none of superseded, stale, error"):
        recorder.drop('lost')


def test_a_new_window_starts_empty():
    recorder = LatencyRecorder(budget_ms=1)
    recorder.receive(0)
    recorder.publish(frame())
    recorder.drop('error')
    recorder.take()
    window = recorder.take()
    assert window.samples == {}
    assert (window.received, window.published, window.deadline_misses) == (0, 0, 0)
    assert window.deadline_miss_rate is None
    assert window.summary('inference') is None
    assert window.drops == dict.fromkeys(DROP_REASONS, 0)


def test_deadline_misses_are_judged_by_the_age_at_publication():
    recorder = LatencyRecorder(budget_ms=22)
    recorder.publish(frame())  # 22 ms: just in time
    recorder.publish(frame(clock_pub=10**18 + 22 * MS + 1))
    window = recorder.take()
    assert window.deadline_misses == 1
    assert window.deadline_miss_rate == 0.5


def test_without_a_stamp_the_budget_is_for_the_time_since_receipt():
    recorder = LatencyRecorder(budget_ms=14.9)
    recorder.publish(frame(stamp=0))  # 15 ms between receipt and publication
    assert recorder.take().deadline_misses == 1


def test_consecutive_misses_last_until_a_frame_in_time():
    recorder = LatencyRecorder(budget_ms=20)
    late, in_time = 10**18 + 50 * MS, 10**18 + 10 * MS
    for at in (0, 100, 250):
        recorder.publish(frame(at * MS, clock_pub=late))
    assert recorder.take().consecutive_misses_ms == 250
    recorder.publish(frame(300 * MS, clock_pub=late))
    assert recorder.take().consecutive_misses_ms == 300
    recorder.publish(frame(400 * MS, clock_pub=in_time))
    assert recorder.take().consecutive_misses_ms == 0


def test_windows_merge_to_what_one_window_would_have_been():
    parts, whole = LatencyRecorder(budget_ms=20), LatencyRecorder(budget_ms=20)
    windows = []
    for number in range(3):
        for recorder in (parts, whole):
            recorder.receive(number * 33 * MS)
            recorder.publish(frame(number * 33 * MS))
            recorder.drop('stale')
            recorder.publish(frame(stamp=0))
        windows.append(parts.take())
    merged, single = merge(windows), whole.take()
    assert merged.samples.keys() == single.samples.keys()
    for name, values in single.samples.items():
        np.testing.assert_array_equal(np.sort(merged.samples[name]), np.sort(values))
    for field in ('received', 'published', 'drops', 'invalid', 'deadline_misses'):
        assert getattr(merged, field) == getattr(single, field)


def test_threads_lose_nothing():
    recorder = LatencyRecorder()

    def work() -> None:
        for _ in range(500):
            recorder.receive(0)
            recorder.drop('error')
            recorder.publish(frame())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    windows = [recorder.take() for _ in range(20)]
    for thread in threads:
        thread.join()
    total = merge([*windows, recorder.take()])
    assert total.received == total.drops['error'] == len(total.samples['publish']) == 2000


@given(durations)
def test_percentiles_interpolate_between_order_statistics(values):
    summary = summarize(values, resamples=0)
    ordered = sorted(values)
    for name, share in (('p50', 0.5), ('p90', 0.9), ('p95', 0.95), ('p99', 0.99)):
        rank = share * (len(ordered) - 1)
        low, high = ordered[math.floor(rank)], ordered[math.ceil(rank)]
        wanted = low + (high - low) * (rank - math.floor(rank))
        assert math.isclose(getattr(summary, name), wanted, rel_tol=1e-9, abs_tol=1e-9)
    assert (summary.n, summary.min, summary.max) == (len(values), ordered[0], ordered[-1])
    assert math.isclose(summary.mean, math.fsum(values) / len(values), rel_tol=1e-9, abs_tol=1e-12)


@given(durations)
def test_bootstrap_intervals_lie_within_the_values_and_repeat(values):
    summary = summarize(values, resamples=50, seed=1)
    assert summary == summarize(values, resamples=50, seed=1)
    if len(values) == 1:
        assert summary.p50_interval is None
        return
    for low, high in (summary.p50_interval, summary.p90_interval):
        assert min(values) <= low <= high <= max(values)


def test_bootstrap_intervals_cover_the_true_percentile_as_often_as_they_say():
    rng = np.random.default_rng(0)
    true = {50: math.log(2), 90: math.log(10)}  # of the exponential distribution
    covered = {50: 0, 90: 0}
    for trial in range(200):
        intervals = bootstrap_percentiles(
            rng.exponential(size=100), [50, 90], resamples=300, seed=trial
        )
        for percentile, (low, high) in zip((50, 90), intervals, strict=True):
            covered[percentile] += low <= true[percentile] <= high
    # 95 % nominal; percentile intervals of quantiles fall a little short with 100 values.
    assert covered[50] >= 0.88 * 200
    assert covered[90] >= 0.85 * 200


def test_large_windows_are_resampled_in_pieces():
    values = np.random.default_rng(0).exponential(size=400_000)
    (low, high), _ = bootstrap_percentiles(values, [50, 90], resamples=20)
    assert low <= math.log(2) + 0.01
    assert high >= math.log(2) - 0.01
    assert high - low < 0.02


def test_nothing_measured_is_no_summary():
    assert summarize([]) is None
