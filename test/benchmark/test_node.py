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

"""The node's benchmark: sources, limits, and short runs of all its processes as a gate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
from tiny_detector import LABELS, square_image

from pruned_perception.benchmark.node import Figures, Limits, Source, failures
from pruned_perception.benchmark.overhead import Ratio
from pruned_perception.cli.main import main
from pruned_perception.errors import UserError
from pruned_perception.inference.latency import summarize


def figures(**changes: Any) -> Figures:
    summary = summarize([10.0, 10.0, 10.0])
    assert summary is not None
    one = Ratio(1.0, None, [1.0])
    counts = {'received': 100, 'published': 90, 'superseded': 10, 'stale': 0, 'error': 0}
    base = Figures(
        'tenth', 30.0, summary, {'inference': summary}, summary, counts, 0, 0.1, False,
        {'tenth': 90}, 0.8, (0.7, 0.9), 0.5, 20.0, 150.0, None, one, one,
    )  # fmt: skip
    return replace(base, **changes)


def test_what_keeps_its_limits_passes() -> None:
    assert failures([figures()], Limits()) == []
    assert failures([figures()], Limits(10.0, 0.8, 0.1)) == []


@pytest.mark.parametrize(
    ('limits', 'words'),
    [
        (Limits(max_p90_ms=9.9), 'p90 10.00 ms is over 9.9 ms'),
        (Limits(min_ap50=0.81), 'AP50 0.800 is under 0.81'),
        (Limits(max_miss_rate=0.09), '10.0 % of the frames received missed the budget'),
    ],
)
def test_each_limit_fails_by_name(limits: Limits, words: str) -> None:
    [text] = failures([figures()], limits)
    assert words in text
    assert text.startswith('tenth at 30 Hz: ')


def test_what_was_not_measured_is_no_failure_but_an_error() -> None:
    with pytest.raises(UserError, match='no ground truth'):
        failures([figures(ap50=None)], Limits(min_ap50=0.5))
    with pytest.raises(UserError, match='needs a budget'):
        failures([figures(miss_rate=None)], Limits(max_miss_rate=0.5))


def test_sources(tmp_path: Path) -> None:
    assert Source.parse('sim') == Source('sim')
    assert Source.parse(f'images:{tmp_path}') == Source('images', str(tmp_path))
    assert Source.parse('topic:/a/image') == Source('topic', '/a/image')
    for text in ('camera', 'images:', 'sim:3', 'synthetic:x'):
        with pytest.raises(UserError, match='is none of synthetic, sim'):
            Source.parse(text)
    with pytest.raises(UserError, match='no such file'):
        Source.parse('bag:/nowhere')


def annotated(folder: Path) -> Path:
    """Write a data set of four images of a square, which the tiny detector finds exactly."""
    folder.mkdir()
    images, boxes = [], []
    for k, left in enumerate((80, 160, 240, 320)):
        image = square_image('green', left, 40, 120)
        cv2.imwrite(str(folder / f'{k}.png'), image[:, :, ::-1])
        images.append({'id': k, 'file_name': f'{k}.png', 'width': 640, 'height': 480})
        box = {'id': k, 'image_id': k, 'category_id': 1, 'bbox': [left, 40, 120, 120]}
        boxes.append({**box, 'area': 14400, 'iscrowd': 0})
    categories = [{'id': k, 'name': label} for k, label in enumerate(LABELS)]
    notes = {'images': images, 'annotations': boxes, 'categories': categories}
    (folder / 'annotations.json').write_text(json.dumps(notes))
    return folder


@pytest.fixture
def alone(monkeypatch: Any) -> None:
    pytest.importorskip('rclpy', reason='needs ROS 2')
    pytest.importorskip('vision_msgs', reason='needs the interface packages')
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        monkeypatch.setenv(name, '')  # so that what the benchmark sets ends with the test
        monkeypatch.delenv(name)


@pytest.mark.ros
@pytest.mark.usefixtures('alone')
def test_the_gate_passes_fails_and_cannot_measure_with_a_status_each(
    tiny_bundle: Any, tmp_path: Path, capsys: Any
) -> None:
    data, output = annotated(tmp_path / 'data'), tmp_path / 'node.json'
    words = ['benchmark', 'node', '--model', str(tiny_bundle.path), '--rounds', '1']
    words += ['--seconds', '4', '--rate', '10', '--source', f'images:{data}']
    limits = ['--budget', '100000', '--max-miss-rate', '0.5', '--min-ap50', '0.9']
    assert main([*words, *limits, '--json', str(output)]) == 0
    result = json.loads(output.read_text())
    [found] = result['figures']
    assert found['ap50'] == pytest.approx(1.0)
    assert found['counts']['received'] + found['middleware_loss'] == 40
    assert found['e2e_receive']['p90'] >= found['stages']['inference']['p90'] > 0
    assert found['energy'] == 'not measured' or found['joules_per_frame'] > 0
    assert found['members'].keys() == {'tiny'}
    assert main([*words, '--max-p90', '0.000001']) == 3
    assert 'FAILED: ' in capsys.readouterr().out
    (tmp_path / 'empty').mkdir()
    words[-1] = f'images:{tmp_path / "empty"}'
    assert main(words) == 1
    assert 'no images in it' in capsys.readouterr().err


@pytest.mark.ros
@pytest.mark.usefixtures('alone')
def test_models_by_turns_under_load_give_ratios(tiny_family: Path, tmp_path: Path) -> None:
    words = ['benchmark', 'node', '--model', str(tiny_family), str(tiny_family / 'small')]
    words += ['--rounds', '1', '--seconds', '2.5', '--load', '1', '--rate', '10']
    output, table = tmp_path / 'node.json', tmp_path / 'node.md'
    assert main([*words, '--json', str(output), '--markdown', str(table)]) == 0
    first, second = json.loads(output.read_text())['figures']
    assert first['p50_ratio']['median'] == 1.0
    assert second['p50_ratio']['median'] > 0
    assert (set(first['members']), set(second['members'])) == ({'dense'}, {'small'})
    assert table.read_text().count('\n|') >= 3
