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

"""The overhead benchmark: its arithmetic, and one short run of all its processes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pruned_perception.benchmark.camera import VARIANTS, synthetic_frame
from pruned_perception.benchmark.overhead import Run, frame_overheads, ratio
from pruned_perception.inference.latency import summarize

MS = 1_000_000


def run(**changes: Any) -> Run:
    summary = summarize([1.0, 2.0])
    assert summary is not None
    counts = {'received': 98, 'published': 90, 'superseded': 5, 'stale': 2, 'error': 1}
    base = Run('perception_node', 100, counts, 90, 3, summary, summary, summary, {})
    return replace(base, **changes)


def test_overhead_is_matched_frame_by_frame_without_the_warm_up() -> None:
    timings = [{'stamp_ns': k * 100 * MS, 'inference': k * MS} for k in range(1, 7)]
    received = {k * 100 * MS: k * 100 * MS + (10 + k) * MS for k in (6, 5, 4, 2, 1)}  # 3 is lost
    e2e, inference = frame_overheads(received, timings, warm_up=2)
    assert e2e.tolist() == [14.0, 15.0, 16.0]
    assert inference.tolist() == [4.0, 5.0, 6.0]
    assert (e2e - inference).tolist() == [10.0] * 3


def test_nothing_left_after_the_warm_up() -> None:
    e2e, inference = frame_overheads({}, [{'stamp_ns': 1, 'inference': 1}], warm_up=0)
    assert e2e.size == inference.size == 0


def test_the_ratio_is_the_median_of_pairs() -> None:
    result = ratio([2.0, 30.0, 5.0], [1.0, 10.0, 5.0])
    assert result.pairs == [2.0, 3.0, 1.0]
    assert result.median == 2.0
    assert result.interval is None  # three pairs carry none
    six = ratio([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0] * 6)
    assert six.interval == (1.0, 6.0)


def test_accounts_must_add_up() -> None:
    assert run().loss == 2
    assert run().balanced
    forgotten = {**run().counts, 'superseded': 4}
    assert not run(counts=forgotten).balanced


def test_frames_are_the_same_every_time_and_differ_from_each_other() -> None:
    frames = [synthetic_frame(index, 48, 64) for index in range(VARIANTS)]
    assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for frame in frames)
    assert np.array_equal(frames[3], synthetic_frame(3, 48, 64))
    assert len({frame.tobytes() for frame in frames}) == VARIANTS


@pytest.mark.ros
def test_a_short_run_of_both_nodes(
    tiny_bundle: Any, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    pytest.importorskip('rclpy', reason='needs ROS 2')
    pytest.importorskip('vision_msgs', reason='needs the interface packages')
    from pruned_perception.cli.main import main

    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        monkeypatch.setenv(name, '')  # so that what the benchmark sets ends with the test
        monkeypatch.delenv(name)
    output = tmp_path / 'results' / 'overhead.json'
    words = ['--pairs', '1', '--frames', '40', '--warm-up', '10', '--output', str(output)]
    assert main(['benchmark', 'overhead', '--model', str(tiny_bundle.path), *words]) == 0
    result = json.loads(output.read_text())
    perception, echo = result['runs']
    assert (perception['node'], echo['node']) == ('perception_node', 'echo_node')
    for each in result['runs']:
        counts = each['counts']
        outcomes = sum(counts[key] for key in ('published', 'superseded', 'stale', 'error'))
        assert each['sent'] == 40 == outcomes + each['middleware_loss']
        assert each['arrived'] <= counts['published']
        assert each['boxes'] == perception['boxes'] > 0
        assert (each['inference']['p50'] > 0) == (each['node'] == 'perception_node')
    assert len(result['overhead_ratio']['p50']['pairs']) == 1
    assert result['model']['sha256'] == tiny_bundle.sha256
    assert result['environment']['cores'] >= 1
    printed = capsys.readouterr().out
    assert 'middleware loss' in printed
    assert 'queue_age' in printed
    assert 'median of 1 pairs' in printed


def test_an_unknown_benchmark_is_named(capsys: Any) -> None:
    from pruned_perception.cli.main import main

    assert main(['benchmark', 'speed']) == 1
    assert "no benchmark 'speed'; there are" in capsys.readouterr().err
