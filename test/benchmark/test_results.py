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

"""Sections of latency.json from the files that a run leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pruned_perception.benchmark.results import (
    PATH,
    WARM_UP,
    last_totals,
    read_frames,
    run_section,
)
from pruned_perception.errors import UserError

MS = 1_000_000
STAGES_MS = {
    'age_at_receipt': 2.0,
    'queue_age': 0.5,
    'preprocess': 1.0,
    'inference': 8.0,
    'postprocess': 0.5,
    'publish': 0.25,
}
FRAMES = 50


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Write 50 frames at 10 Hz that take 12.25 ms to publish, and 1 + i/100 ms to arrive."""
    records, timings = [], []
    for i in range(FRAMES):
        stamp = 1_000_000_000 + i * 100 * MS
        received = stamp + int((12.25 + 1 + i / 100) * MS)
        records.append({'namespace': '/robot', 'stamp': stamp, 'received': received, 'boxes': []})
        stages = {name: int(value * MS) for name, value in STAGES_MS.items()}
        timings.append({'stamp_ns': stamp, **stages, 'e2e_publish': int(12.25 * MS)})
    paths = (tmp_path / 'records', tmp_path / 'timings')
    for path, lines in zip(paths, (records, timings), strict=True):
        path.write_text('\n'.join(map(json.dumps, lines)) + '\n')
    return paths


def totals(**changes: Any) -> dict[str, Any]:
    return {
        'model': 'dense',
        'received': FRAMES,
        'loss_out': 0,
        'counters': {'received': 52, 'published': 50, 'superseded': 2, 'stale': 0, 'error': 0},
        'invalid_stamps': 0,
        'cpu_percent': 20.0,
        'rss_mib': 150.0,
        **changes,
    }


def test_parts_are_joined_by_stamp_and_add_up(files: tuple[Path, Path]) -> None:
    frames = read_frames(*files)
    assert len(frames.stamps) == FRAMES
    whole = frames.quantities['e2e_receive']
    np.testing.assert_allclose(whole, 13.25 + np.arange(FRAMES) / 100)
    np.testing.assert_allclose(sum(frames.quantities[part] for part in PATH), whole)
    np.testing.assert_allclose(frames.quantities['overhead'], whole - 8)


def test_typical_frame_adds_up_to_the_middle(files: tuple[Path, Path]) -> None:
    frames = read_frames(*files)
    parts = frames.typical(PATH)
    assert parts['inference'] == pytest.approx(8)
    assert sum(parts.values()) == pytest.approx(np.median(frames.quantities['e2e_receive']))


def test_section_of_a_replay_balances_against_the_player(files: tuple[Path, Path]) -> None:
    section = run_section(
        'dense',
        read_frames(*files),
        totals(),
        clock='restamped',
        description='',
        sent=53,
        played_s=5.3,
        behind_ms=4.0,
    )
    assert section['frames'] == {
        'sent': 53,
        'published': 50,
        'superseded': 2,
        'stale': 0,
        'error': 0,
        'middleware_loss': 1,
        'received': 50,
        'loss_after_the_node': 0,
    }
    e2e = section['latency_ms']['e2e_receive']
    assert e2e['n'] == FRAMES - WARM_UP == 40
    assert e2e['min'] == pytest.approx(13.25 + WARM_UP / 100)
    low, high = e2e['p50_interval']
    assert low <= e2e['p50'] <= high
    named = section['basic_performance_metrics']
    assert named['# of Frames Sent'] == 53
    assert named['# of Missed Frames'] == 3
    assert named['Mean Playback Frame Rate (fps)'] == pytest.approx(10)
    assert named['Mean Frame Rate (fps)'] == pytest.approx(10, rel=1e-3)
    json.dumps(section, allow_nan=False)


def test_section_without_a_player(files: tuple[Path, Path]) -> None:
    section = run_section(
        'live', read_frames(*files), totals(loss_out=2), clock='system', description='', sent=52
    )
    assert section['frames']['middleware_loss'] == 0
    named = section['basic_performance_metrics']
    assert named['# of Missed Frames'] == 4  # 2 superseded, 2 lost after the node
    assert named['Mean Playback Frame Rate (fps)'] is None


def test_invalid_ages_are_left_out(files: tuple[Path, Path]) -> None:
    records, timings = files
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    lines[20]['received'] = lines[20]['stamp'] - 5 * MS
    own = [json.loads(line) for line in timings.read_text().splitlines()]
    own[21]['age_at_receipt'] = None
    records.write_text('\n'.join(map(json.dumps, lines)))
    timings.write_text('\n'.join(map(json.dumps, own)))
    section = run_section(
        'x', read_frames(*files), totals(), clock='system', description='', sent=52
    )
    assert section['latency_ms']['e2e_receive']['n'] == 39
    assert section['latency_ms']['age_at_receipt']['n'] == 39
    assert section['latency_ms']['inference']['n'] == 40


def test_a_line_cut_off_is_left_out_and_damage_is_named(files: tuple[Path, Path]) -> None:
    records, timings = files
    whole = timings.read_text()
    timings.write_text(whole[:-30])
    frames = read_frames(records, timings)
    assert np.isnan(frames.quantities['inference'][-1])
    assert np.isfinite(frames.quantities['e2e_receive'][-1])
    timings.write_text('garbage\n' + whole)
    with pytest.raises(UserError, match='timings, line 1'):
        read_frames(records, timings)
    with pytest.raises(UserError, match='cannot read'):
        read_frames(records, timings.with_name('absent'))


def test_totals_come_from_the_end_of_the_monitors_output(tmp_path: Path) -> None:
    output = tmp_path / 'out'
    lines = [{'cameras': [{'namespace': '/a'}]}, {'totals': [{'namespace': '/a', 'received': 3}]}]
    output.write_text('\n'.join(map(json.dumps, lines)))
    assert last_totals(output, '/a')['received'] == 3
    with pytest.raises(UserError, match='no totals of /b'):
        last_totals(output, '/b')
