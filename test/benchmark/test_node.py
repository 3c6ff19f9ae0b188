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

"""The node's benchmark: sources, limits, pages, and short runs of all its processes as a gate."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
from tiny_detector import LABELS, square_image

from pruned_perception.benchmark import node_page, series
from pruned_perception.benchmark.camera import camera_command, source_frames
from pruned_perception.benchmark.frame_source import MAX, OWN, Source
from pruned_perception.benchmark.node import Figures, Measured, Setup
from pruned_perception.benchmark.node_gate import Limits, failures, same_twice
from pruned_perception.benchmark.overhead import Ratio
from pruned_perception.benchmark.session import private_domain, ros_session
from pruned_perception.cli.main import main
from pruned_perception.errors import UserError
from pruned_perception.inference.frame_times import FRAME_QUANTITIES
from pruned_perception.inference.latency import summarize


def figures(**changes: Any) -> Figures:
    summary = summarize([10.0, 10.0, 10.0])
    assert summary is not None
    one = Ratio(1.0, None, [1.0])
    base = Figures(
        model='tenth',
        sha256=('a',),
        rate=30.0,
        achieved_hz=30.0,
        e2e_receive=summary,
        overhead=summary,
        in_process=summary,
        jitter=summary,
        stages=dict.fromkeys(FRAME_QUANTITIES, summary),
        engine_wait=summary,
        counts={'received': 100, 'published': 90, 'superseded': 10, 'stale': 0, 'error': 0},
        middleware_loss=0,
        invalid_ages=0,
        miss_rate=0.1,
        saturated=False,
        members={'tenth': 90},
        ap50=0.8,
        ap50_interval=(0.7, 0.9),
        ap50_95=0.5,
        first_detection_s=0.5,
        cpu_percent=20.0,
        rss_mb=150.0,
        shared_mb=7.0,
        joules_per_frame=None,
        p50_ratio=one,
        p90_ratio=one,
        ros_ratio=one,
    )
    return replace(base, **changes)


def measured(*found: Figures) -> Measured:
    return Measured(Setup(tuple(each.model for each in found)), found, '')


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


def test_a_bundle_given_twice_is_compared_with_itself() -> None:
    def second(low: float, high: float) -> Figures:
        return figures(p50_ratio=Ratio(1.0, (low, high), []))

    [text] = same_twice([figures(), second(0.9, 1.1)])
    assert 'differs by less than the interval (0.90 … 1.10 holds 1)' in text
    [text] = same_twice([figures(), second(1.02, 1.1)])
    assert 'differs by MORE than the interval' in text
    assert same_twice([figures(), replace(second(1.5, 2.0), sha256=('b',))]) == []
    assert same_twice([figures(), figures()]) == []  # too few rounds for an interval


def test_the_json_has_no_number_that_is_none() -> None:
    content = node_page.as_json(
        measured(figures(rate=MAX, achieved_hz=float('nan')), figures(rate=OWN)), ['x']
    )
    text = json.dumps(content, allow_nan=False)
    first, second = json.loads(text)['figures']
    assert (first['rate'], first['achieved_hz'], second['rate']) == ('max', None, 'own rate')
    assert (content['energy'], content['failed']) == ('not measured', ['x'])


def test_the_page_is_whole_and_names_what_is_saturated() -> None:
    found = measured(figures(model='<b>a</b>', saturated=True), figures(model='b', invalid_ages=3))
    page = node_page.as_page(found, ['b: too slow'], [], 'pruned-perception benchmark node')
    assert '<b>a</b>' not in page
    assert '&lt;b&gt;a&lt;/b&gt; at 30 Hz: SATURATED' in page
    assert 'b: too slow' in page
    assert 'was a clock set?' in page
    assert 'prefers-color-scheme: dark' in page
    assert not any(word in page for word in ('http:', 'https:', '<script', 'src='))
    markdown = node_page.as_markdown(found, ['b: too slow'], [])
    assert markdown.count('SATURATED') == 2
    assert 'FAILED: b: too slow' in markdown


def test_sources(tmp_path: Path) -> None:
    assert Source.parse('sim') == Source('sim')
    assert Source.parse(f'images:{tmp_path}') == Source('images', str(tmp_path))
    assert Source.parse(f'bag:{tmp_path}:/front/image') == Source(
        'bag', str(tmp_path), '/front/image'
    )
    assert Source.parse('topic:/a/image') == Source('topic', '/a/image')
    for text in ('camera', 'images:', 'sim:3', 'synthetic:x'):
        with pytest.raises(UserError, match='is none of synthetic, sim'):
            Source.parse(text)
    with pytest.raises(UserError, match='no such file'):
        Source.parse('bag:/nowhere')


def test_rates_that_a_source_cannot_have() -> None:
    Source('images', '/x').check_rate(MAX)
    Source('topic', '/x').check_rate(OWN)
    with pytest.raises(UserError, match='leave out --rate'):
        Source('topic', '/x').check_rate(30.0)
    with pytest.raises(UserError, match='sim renders at a rate'):
        Source('sim').check_rate(MAX)


def test_a_folder_of_damaged_images_is_no_source(tmp_path: Path) -> None:
    (tmp_path / 'a.png').write_bytes(b'no image')
    with pytest.raises(UserError, match='no image in it can be read'):
        source_frames(str(tmp_path))


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
    words += ['--seconds', '2.5', '--rate', '10', '--source', f'images:{data}']
    limits = ['--budget', '100000', '--max-miss-rate', '0.5', '--min-ap50', '0.9']
    assert main([*words, *limits, '--json', str(output)]) == 0
    result = json.loads(output.read_text())
    [found] = result['figures']
    assert found['ap50'] == pytest.approx(1.0)
    assert found['counts']['received'] + found['middleware_loss'] == 25
    assert found['e2e_receive']['p90'] >= found['stages']['inference']['p90'] > 0
    assert found['in_process']['n'] > 0
    assert result['configuration']['rates'] == [10.0]
    assert result['energy'] == 'not measured' or found['joules_per_frame'] > 0
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
    words += ['--rounds', '1', '--seconds', '2.5', '--load', '1', '--rate', 'max']
    output, table, page = (tmp_path / f'node.{each}' for each in ('json', 'md', 'html'))
    written = ['--json', str(output), '--markdown', str(table), '--html', str(page)]
    assert main([*words, *written]) == 0
    first, second = json.loads(output.read_text())['figures']
    assert first['p50_ratio']['median'] == 1.0
    assert second['p50_ratio']['median'] > 0
    assert (set(first['members']), set(second['members'])) == ({'dense'}, {'small'})
    assert (first['rate'], first['middleware_loss']) == ('max', 0)
    assert table.read_text().count('\n|') >= 3
    assert page.read_text().startswith('<!DOCTYPE html>')


@contextmanager
def somebodys_camera(topic: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        camera_command(topic, rate=10, frames=10_000), stdout=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.ros
@pytest.mark.usefixtures('alone')
def test_a_camera_that_ends_early_is_named(
    tiny_bundle: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    for name, value in private_domain().items():
        monkeypatch.setenv(name, value)
    topic = '/front/image_raw'
    source = Source.parse(f'topic:{topic}')
    with ros_session('early_end') as session, somebodys_camera(topic) as camera:
        parameters, remap = source.node_parameters(session)
        assert source.sample(session, tmp_path, (480, 640))[0].width == 640
        with pytest.raises(UserError, match=f'topic:{topic}: it ended early'):
            series.run_series(
                session,
                'perception_node',
                {'model': str(tiny_bundle.path), **parameters},
                None,
                folder=tmp_path,
                namespace='/early_end',
                seconds=2.5,
                started=lambda *_: camera.send_signal(signal.SIGKILL),
                remap=remap,
            )


@pytest.mark.ros
@pytest.mark.usefixtures('alone')
def test_what_the_frames_need_is_asked_for_while_they_are_waited_for(
    tiny_bundle: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    for name, value in private_domain().items():
        monkeypatch.setenv(name, value)

    def require() -> None:
        raise UserError('the simulator ended')

    # Without it, the message would be that no detections came back.
    with ros_session('needed') as session, pytest.raises(UserError, match='simulator ended'):
        series.run_series(
            session,
            'perception_node',
            {'model': str(tiny_bundle.path)},
            None,
            folder=tmp_path,
            namespace='/needed',
            seconds=0.0,
            require=require,
        )


@pytest.mark.ros
@pytest.mark.usefixtures('alone')
def test_a_topic_that_is_no_image_is_refused(monkeypatch: Any) -> None:
    from std_msgs.msg import String

    for name, value in private_domain().items():
        monkeypatch.setenv(name, value)
    with ros_session('no_image') as session:
        session.node.create_publisher(String, '/text', 10)
        with pytest.raises(UserError, match=r'std_msgs/msg/String, not sensor_msgs/msg/Image'):
            Source('topic', '/text').node_parameters(session)
        monkeypatch.setattr('pruned_perception.benchmark.frame_source.APPEARS_S', 0.2)
        with pytest.raises(UserError, match='nobody published it'):
            Source('topic', '/nobody').node_parameters(session)
