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

"""The contract's benchmark: what it makes of a series, and one short run of all its processes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pruned_perception.benchmark import contract
from pruned_perception.benchmark.contract import Run, judge, summarise
from pruned_perception.benchmark.series import Series

SECOND = 1_000_000_000
MS = 1_000_000


def series(**changes: Any) -> Series:
    """Return 30 s at 10 Hz, every frame published after 10 ms."""
    sent = tuple(1000 * SECOND + k * SECOND // 10 for k in range(300))
    lines = [
        {'stamp_ns': stamp, 'e2e_publish': 10 * MS, 'preprocess': MS, 'inference': 5 * MS,
         'postprocess': MS, 'publish': MS}
        for stamp in sent
    ]  # fmt: skip
    counts = {'received': 300, 'published': 300, 'superseded': 0, 'stale': 0, 'error': 0}
    base = Series(
        'perception_node', sent, tuple(range(300)), counts, {}, {}, {}, lines, [(sent[0], 'dense')],
        1.0, 50.0, 100.0,
    )  # fmt: skip
    return replace(base, **changes)


def test_a_frame_without_detections_in_time_is_missed_whatever_the_reason() -> None:
    base = series()
    assert base.missed(10.0) == 0.0
    assert base.missed(9.0) == 1.0
    assert base.missed(10.0, base.sent[-1] + 1) is None
    some = series(timings=base.timings[30:])  # the others gave way, were stale, or failed
    assert some.missed(10.0) == pytest.approx(0.1)
    unknown = [{**line, 'e2e_publish': None} for line in base.timings]  # invalid stamps
    assert series(timings=unknown).missed(10.0) == 1.0


def test_saturated_runs_are_named() -> None:
    base = series()
    assert not base.saturated
    assert series(counts={**base.counts, 'superseded': 4}).saturated
    busy = [{**line, 'inference': 95 * MS} for line in base.timings]
    assert series(timings=busy).saturated


def test_switches_are_counted_by_the_change_of_load_that_they_follow() -> None:
    start = series().sent[0]
    on, off = start + 10 * SECOND, start + 20 * SECOND
    models = [
        (start, 'half'),
        (on + SECOND, 'quarter'),
        (on + 2 * SECOND, 'tenth'),
        (off + SECOND, 'half'),
    ]
    run = summarise(series(models=models), 'family', 10.0, on, off)
    assert (run.switches_loaded, run.switches_after, run.left) == (2, 1, True)
    assert run.returned_s == 1.0
    never = summarise(series(models=models[:3]), 'family', 10.0, on, off)
    assert (never.left, never.returned_s) == (True, None)
    stayed = summarise(series(models=models[:1]), 'family', 10.0, on, off)
    assert (stayed.left, stayed.returned_s, stayed.switches_loaded) == (False, None, 0)


def test_the_verdict() -> None:
    def run(node: str, missed: float, **changes: Any) -> Run:
        base = Run(node, 0.0, 0.5, missed, 0.0, 1, 1, [], 1.0, left=node == 'family')
        return replace(base, **changes)

    others = [run('echo', 0.02), run('dense', 0.7)]
    good = judge([run('family', 0.03), *others], 'dense')
    assert (good.kept, good.returned, good.calm) == (True, True, True)
    assert (good.dense_misses, good.echo_misses) == (0.7, 0.02)
    assert not judge([run('family', 0.04), *others], 'dense').kept
    assert not judge([run('family', 0.0, returned_s=3.5), *others], 'dense').returned
    assert not judge([run('family', 0.0, returned_s=None), *others], 'dense').returned
    assert not judge([run('family', 0.0, switches_after=3), *others], 'dense').calm


@pytest.mark.ros
def test_a_short_run(tiny_family: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    pytest.importorskip('rclpy', reason='needs ROS 2')
    pytest.importorskip('vision_msgs', reason='needs the interface packages')
    from pruned_perception.cli.main import main

    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        monkeypatch.setenv(name, '')  # so that what the benchmark sets ends with the test
        monkeypatch.delenv(name)
    for name in ('WARM_UP_S', 'SETTLING_S', 'RETURN_S'):  # what the phases above leave room for
        monkeypatch.setattr(contract, name, 0.4)
    output = tmp_path / 'contract.json'
    words = ['--model', str(tiny_family), '--budget', '100000', '--rounds', '1', '--seconds', '1.2']
    words += ['--load', '1', '--output', str(output)]
    status = main(['benchmark', 'contract', *words])
    result = json.loads(output.read_text())
    verdict = result['verdict']
    assert status == (0 if verdict['kept'] and verdict['returned'] and verdict['calm'] else 3)
    assert [run['node'] for run in result['runs']] == ['family', 'echo', 'dense', 'small']
    assert result['runs'][0]['members'][0][1] == 'dense'
    word = 'reached ' if verdict['kept'] else 'MISSED  '
    assert f'{word} at most the echo node + 1 point' in capsys.readouterr().out
