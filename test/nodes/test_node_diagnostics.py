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

"""Diagnostics: from numbers to a level and words that name the thing and the way out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pruned_perception.inference.latency import Window
from pruned_perception.nodes import diagnostics
from pruned_perception.nodes.diagnostics import (
    ERROR,
    OK,
    WARN,
    Content,
    Failures,
    Filters,
    Input,
    Job,
    Machine,
)
from pruned_perception.nodes.header_stamps import StampCounts
from pruned_perception.nodes.latest_frame import FrameCounts
from pruned_perception.nodes.machine import processor_times, usable_cores

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
INPUT = Input('/front/image_raw', IMAGE, 'raw', 'reliable', [], 0, 0.5)
CAMERA = ('/camera', IMAGE, 'reliable')
IDLE = Machine(busy_percent=35.0, cores=4, threads=1)


def window(**changes: object) -> Window:
    values: dict = {
        'seconds': 1.0,
        'samples': {'inference': np.array([1.0, 2.0, 9.0]), 'processing': np.array([3.0])},
        'received': 3,
        'published': 3,
        'drops': {'superseded': 0, 'stale': 0, 'error': 0},
        'invalid': {},
        'deadline_misses': 0,
        'consecutive_misses_ms': 0.0,
    }
    return Window(**{**values, **changes})


@pytest.mark.parametrize(
    ('state', 'level', 'words'),
    [
        (INPUT, OK, 'waiting for the first image'),
        (replace(INPUT, received=9), OK, 'receiving at 30.0 Hz'),
        (replace(INPUT, silent_s=3.0), ERROR, 'no publisher on /front/image_raw'),
        (
            replace(INPUT, silent_s=3.0, received=9),
            ERROR,
            'no image for 3.0 s: no publisher on /front/image_raw',
        ),
        (
            replace(INPUT, silent_s=3.0, publishers=[('/camera', COMPRESSED, 'reliable')]),
            ERROR,
            f'/front/image_raw carries {COMPRESSED}, and {IMAGE} is subscribed to',
        ),
        (
            replace(INPUT, silent_s=3.0, publishers=[CAMERA]),
            ERROR,
            'no image yet: image_transport raw, subscribed reliable; publishers: /camera reliable',
        ),
        (
            replace(INPUT, silent_s=3.0, publishers=[('/camera', IMAGE, 'best_effort')]),
            ERROR,
            'set image_reliability to auto',
        ),
        (
            replace(INPUT, silent_s=3.0, received=9, publishers=[CAMERA]),
            ERROR,
            'no image for 3.0 s on /front/image_raw, though its publisher is listed',
        ),
    ],
)
def test_silence_is_told_apart_by_its_cause(state: Input, level: int, words: str) -> None:
    status = diagnostics.image_input(state, 2.0, 30.0)
    assert status.level == level
    assert words in status.message
    assert status.values['reliability'] == 'reliable'


def test_an_image_error_outweighs_a_change() -> None:
    content = Content('rgb8, 4 × 4', 'camera', 1, 'from a to b', True, 'encoding x is unknown')
    assert diagnostics.image_content(content).level == ERROR
    assert diagnostics.image_content(content).message == 'encoding x is unknown'
    changed = diagnostics.image_content(replace(content, error=''))
    assert (changed.level, changed.message) == (WARN, 'the images changed: from a to b')
    quiet = diagnostics.image_content(replace(content, error='', changed=False))
    assert (quiet.level, quiet.message) == (OK, 'rgb8, 4 × 4')


def test_all_faults_of_stamps_are_named_together() -> None:
    total = StampCounts(5, zero=1, future=1, old=2, backwards=1, old_s=4e8, backwards_s=3.0)
    status = diagnostics.stamps(total, total, sim_time=False)
    assert status.level == WARN
    for words in ('stamp 0', 'in the future', '12.7 years old', '--clock', 'went back'):
        assert words in status.message
    calm = diagnostics.stamps(total, StampCounts(5), sim_time=False)
    assert calm.level == OK
    assert calm.values['zero'] == 1


def test_stamps_a_minute_old_have_another_way_out_than_a_bags() -> None:
    total = StampCounts(1, old=1, old_s=60.0)
    message = diagnostics.stamps(total, total, sim_time=False).message
    assert 'frames queue before this node' in message
    assert '--clock' not in message


def test_the_age_said_is_that_of_the_frame_that_was_old() -> None:
    """And how far a stamp was ahead that of the one that was; the last frame may be neither."""
    total = StampCounts(30, old=3, future=1, old_s=12.0, future_s=7.0, last_age_s=0.0)
    message = diagnostics.stamps(total, total, sim_time=False).message
    assert '3 of 30 stamps are 12.0 s old' in message
    assert 'in the future, by 7.0 s' in message


@pytest.mark.parametrize(
    ('changes', 'level', 'words'),
    [
        ({}, OK, 'system time'),
        ({'sim_time': True}, OK, 'simulated time'),
        ({'sim_time': True, 'now_ns': 0}, ERROR, 'no /clock arrives'),
        ({'sim_time': True, 'stands_still': True}, WARN, 'stands still'),
        ({'jumped': True, 'jumps': 1, 'jump_s': -12.0}, WARN, 'jumped back by 12.0 s'),
    ],
)
def test_the_clock(changes: dict, level: int, words: str) -> None:
    values = {
        'sim_time': False,
        'now_ns': 5,
        'stands_still': False,
        'jumps': 0,
        'jumped': False,
        'jump_s': 0.0,
    }
    status = diagnostics.clock(**{**values, **changes})
    assert status.level == level
    assert words in status.message


def test_frames_warn_of_loss_in_this_period_only() -> None:
    before = FrameCounts(10, 5, 3, 1, 1)
    calm = diagnostics.frames(FrameCounts(20, 14, 4, 1, 1), before, window(), IDLE)
    assert calm.level == OK
    assert calm.message == '9 of 10 images became detections, 1 gave way to newer ones'
    bad = diagnostics.frames(FrameCounts(20, 12, 3, 3, 2), before, window(), IDLE)
    assert bad.level == WARN
    assert '2 were older than max_age_ms, 1 failed' in bad.message
    assert bad.values['received'] == 20


@pytest.mark.parametrize(
    ('received', 'superseded', 'level'), [(225, 197, WARN), (225, 40, OK), (19, 19, OK)]
)
def test_a_worker_that_does_not_keep_up_is_a_warning(
    received: int, superseded: int, level: int
) -> None:
    drops = {'superseded': superseded, 'stale': 0, 'error': 0}
    recent = window(received=received, drops=drops)
    counts = FrameCounts(received, received - superseded, superseded)
    status = diagnostics.frames(counts, FrameCounts(), recent, IDLE)
    assert status.level == level
    assert ('does not keep up' in status.message) == (level == WARN)


def test_the_ways_out_come_in_order_and_fit_the_machine() -> None:
    unknown = replace(IDLE, busy_percent=None)
    for machine in (IDLE, unknown):
        text = diagnostics.ways_out(machine)
        assert text.index('smaller member') < text.index('lower image rate')
        assert text.index('lower image rate') < text.index('more threads')
    full = diagnostics.ways_out(replace(IDLE, busy_percent=99.0))
    assert full.index('smaller member') < full.index('lower image rate')
    assert '99 % busy, so more threads would not help' in full
    assert 'threads' not in diagnostics.ways_out(replace(IDLE, threads=4))


def test_processor_times_are_read() -> None:
    times = processor_times()
    assert times is not None
    assert 0 < times[0] < times[1]


def test_cores_are_those_that_a_container_leaves(tmp_path: Path) -> None:
    allowed = len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path) == allowed
    for text, expected in (
        ('max 100000', allowed),
        ('50000 100000', 1),
        (f'{allowed + 1}00000 100000', allowed),
    ):
        (tmp_path / 'cpu.max').write_text(text)
        assert usable_cores(tmp_path) == expected


@pytest.mark.parametrize(
    ('job', 'level', 'words'),
    [
        (None, OK, 'waiting for an image'),
        (Job('the frame in hand', 0.4), OK, 'at work'),
        (Job('the frame in hand', 1.4), ERROR, 'the frame in hand has taken 1.4 s so far'),
        (Job('the frame in hand', 0.4, left_behind=True), ERROR, 'was left behind'),
    ],
)
def test_the_age_of_the_frame_in_hand(job: Job | None, level: int, words: str) -> None:
    status = diagnostics.worker(job, 1.0, 10.0)
    assert status.level == level
    assert words in status.message
    assert status.values['frame_in_hand_s'] == (0.0 if job is None else job.seconds)


def test_settings_under_which_nothing_is_published() -> None:
    usual = Filters(0.4, 0.6, 100)
    assert diagnostics.settings(usual).level == OK
    some = diagnostics.settings(replace(usual, classes=('cone',)))
    assert (some.level, some.values['classes']) == (OK, 'cone')
    assert 'only detections of cone' in some.message
    blind = diagnostics.settings(replace(usual, score_threshold=1.0))
    assert blind.level == WARN
    assert 'score_threshold 1 lets (nearly) no detection through' in blind.message


def test_a_publisher_with_a_dev_shm_of_its_own() -> None:
    state = replace(INPUT, silent_s=3.0, publishers=[CAMERA], unreachable=['the publisher 010f'])
    status = diagnostics.image_input(state, 2.0, 0.0)
    assert status.level == ERROR
    assert 'the publisher 010f is on this host, but with a /dev/shm of its own' in status.message
    assert '--ipc=host' in status.message


@pytest.mark.parametrize(
    ('budget', 'misses', 'lasting_ms', 'level'),
    [(0.0, 0, 0.0, OK), (10.0, 0, 0.0, OK), (10.0, 1, 30.0, WARN), (10.0, 3, 1500.0, ERROR)],
)
def test_latency_against_the_budget(
    budget: float, misses: int, lasting_ms: float, level: int
) -> None:
    second = window(deadline_misses=misses, consecutive_misses_ms=lasting_ms)
    status = diagnostics.latency(second, second, budget, {'cpu_percent': 12.0}, IDLE)
    assert status.level == level
    assert status.values['is_processing_time_ms_in_expected_range'] is (misses == 0)
    assert status.values['consecutive_processing_delay_ms'] == lasting_ms
    assert status.values['inference_time_ms'] == 2.0
    assert status.values['processing_time_ms'] == 3.0
    assert status.values['inference_p50_ms'] == 2.0
    assert status.values['queue_age_p50_ms'] == ''
    assert status.values['deadline_miss_rate'] == pytest.approx(misses / 3)
    assert status.values['cpu_percent'] == 12.0


def test_a_budget_says_nothing_of_a_recordings_stamps() -> None:
    samples = {'e2e_publish': np.array([3 * 31_557_600_000.0])}
    second = window(samples=samples, deadline_misses=3, consecutive_misses_ms=5000.0)
    status = diagnostics.latency(second, second, 50.0, {}, IDLE)
    assert status.level == WARN
    assert 'the stamps are 3.0 years old (see stamps)' in status.message


def test_failures_of_the_model() -> None:
    description = {'model': 'warehouse', 'sha256': 'ab'}
    assert diagnostics.model(description, Failures()).level == OK
    status = diagnostics.model(description, Failures(3, 'output holds NaN'))
    assert status.level == ERROR
    assert '3 frame(s) failed: output holds NaN' in status.message
    assert status.values == description
    crowded = diagnostics.model(description, Failures(crowded=2, left_out=30_000))
    assert crowded.level == WARN
    assert '2 frame(s) had too many candidates, and 30000' in crowded.message


def test_a_node_that_is_not_active_says_what_it_waits_for() -> None:
    description = {'model': 'warehouse', 'sha256': 'ab'}
    assert 'activate' in diagnostics.inactive('inactive', description, None, 60.0).message
    loading = diagnostics.inactive('unconfigured', {}, Job('loading the model', 3.0), 60.0)
    assert loading.level == WARN
    assert loading.message == 'unconfigured: loading the model for 3.0 s, at most 60 s'
    finalized = diagnostics.inactive(diagnostics.FINALIZED, {}, None, 60.0).message
    assert 'activate' not in finalized
    assert 'start a new process' in finalized


def test_shared_names() -> None:
    assert diagnostics.node_name('/a', 1).level == OK
    status = diagnostics.node_name('/a', 2)
    assert status.level == WARN
    assert '2 nodes are named /a' in status.message
    assert '__node:=' in status.message
