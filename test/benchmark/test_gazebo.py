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

"""The benchmark in Gazebo, against a stand-in that publishes what Gazebo's bridges would."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_detector import square_image, write_tiny_bundle

from pruned_perception.bundle import load_member, resolve_model
from pruned_perception.cli.main import main
from pruned_perception.errors import UserError
from pruned_perception.nodes import gazebo as launching
from pruned_perception.simulation import LABELS

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')

from pruned_perception.benchmark import gazebo, gazebo_simulation
from pruned_perception.benchmark.accuracy import accuracy
from pruned_perception.benchmark.gazebo_simulation import Simulation, Watch
from pruned_perception.benchmark.series import Series
from pruned_perception.benchmark.session import ros_session
from pruned_perception.inference.frame_times import FRAME_QUANTITIES
from pruned_perception.simulation.world_check import WorldFacts

pytestmark = pytest.mark.ros

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = Path(__file__).with_name('gazebo_stand_in.py')

Rows = list[list[float]]


def write_frames(path: Path, images: np.ndarray, truths: Sequence[Rows]) -> Path:
    np.savez(path, images=images, truths=json.dumps(list(truths)))
    return path


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """Return frames of a square that the tiny detector finds exactly: at 5 × its 24 pixels."""
    lefts = (80, 160, 240, 320)
    images = np.stack([square_image('green', left, 40, 120) for left in lefts])
    return write_frames(
        tmp_path / 'frames.npz', images, [[[left, 40, left + 120, 160, 1]] for left in lefts]
    )


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Return a world whose labels are the tiny detector's classes."""
    text = (ROOT / 'worlds' / 'warehouse_light.sdf').read_text()
    text = re.sub(r'<label>(\d)', lambda found: f'<label>{int(found[1]) % 3}', text)
    path = tmp_path / 'world.sdf'
    path.write_text(text)
    return path


def stand_in(frames: Path, mode: str = 'normal') -> Callable[..., Any]:
    def commands(_world: Path, _route: Path | None, pass_: str, namespace: str, _folder: Path):
        return {'gazebo': [sys.executable, str(STAND_IN), str(frames), namespace, pass_, mode]}

    return commands


def test_both_passes_of_a_bundle(
    squares: Path,
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = write_tiny_bundle(tmp_path / 'bundle')
    results: list[gazebo.Result] = []
    measure = gazebo.measure

    def with_stand_in(setup: gazebo.Setup, tell: Any) -> gazebo.Result:
        results.append(measure(setup, tell, stand_in(squares)))
        return results[-1]

    monkeypatch.setattr(gazebo, 'measure', with_stand_in)
    words = f'--model {model.path} --world {world} --route none --seconds 1.5'
    files = ['--json', str(tmp_path / 'result.json'), '--html', str(tmp_path / 'page.html')]
    assert main(['benchmark', 'gazebo', *words.split(), *files]) == 0
    [result] = results
    exact, timed = result.passes
    assert (exact.pass_, exact.clock) == ('accuracy', 'sim')
    assert exact.accuracy.ap50 == pytest.approx(1.0)
    assert exact.with_truth > 5
    assert exact.e2e_receive is None  # a latency in simulated time would mean nothing
    assert (timed.pass_, timed.clock) == ('latency', 'system')
    assert timed.accuracy is None
    assert 0 < timed.e2e_receive.p50 < 60_000
    assert timed.in_process.p50 > 0
    for each in result.passes:
        balance = each.losses
        assert balance.published + balance.superseded + balance.stale + balance.error > 0
        assert balance.bridged <= balance.due + 1
        assert balance.received <= balance.published
        assert 0 < each.real_time_factor < 1
        assert each.frames_per_simulated_s == pytest.approx(30, rel=0.2)
        assert not each.slow
    document = json.loads((tmp_path / 'result.json').read_text())
    assert document['benchmark'] == 'gazebo'
    assert [each['pass'] for each in document['figures']] == ['accuracy', 'latency']
    assert document['figures'][0]['accuracy']['per_class']['green']['ap50'] == pytest.approx(1.0)
    assert document['simulator'][next(iter(launching.HIGH_WATER_MARKS))] == '4'
    page = (tmp_path / 'page.html').read_text()
    assert 'data:image/png' in page
    assert 'warehouse_light' in page
    printed = capsys.readouterr().out
    assert all(word in printed for word in ('tiny', 'real-time factor', 'superseded', 'green'))


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text('#!/bin/sh\n')
    path.chmod(0o755)
    return path


def test_what_is_started_is_gazebo_its_bridges_and_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gz = executable(tmp_path / 'bin' / 'gz')
    bridge = executable(tmp_path / 'prefix' / 'lib' / 'ros_gz_bridge' / 'parameter_bridge')
    monkeypatch.setenv('PATH', str(gz.parent))
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path / 'prefix'))
    route = ROOT / 'worlds' / 'warehouse_route.csv'

    def commands(pass_: str) -> dict[str, list[str]]:
        return dict(
            gazebo_simulation.simulator_commands(tmp_path / 'w.sdf', route, pass_, '/g', tmp_path)
        )

    accurate = commands('accuracy')
    assert list(accurate) == [
        *('gazebo', 'clock_bridge', 'camera_bridge', 'boxes_bridge', 'robot_bridge', 'driver'),
    ]
    assert accurate['gazebo'][:5] == ['gz', 'sim', '-r', '-s', '--headless-rendering']
    timed = commands('latency')
    assert 'boxes_bridge' not in timed
    wall = 'override_timestamps_with_wall_time:=true'
    assert [name for name, words in timed.items() if wall in words] == ['camera_bridge']
    assert all(words[0] == str(bridge) for name, words in timed.items() if 'bridge' in name)
    bridge.unlink()
    monkeypatch.setattr(gazebo_simulation.gazebo_bridge, 'python_with_bindings', lambda: 'py')
    ours = commands('latency')
    assert list(ours) == list(timed)
    assert [name for name, words in ours.items() if '--wall-stamps' in words] == ['camera_bridge']
    monkeypatch.setattr(gazebo_simulation.gazebo_bridge, 'python_with_bindings', lambda: None)
    with pytest.raises(UserError, match=r'neither ros_gz_bridge nor .*bindings'):
        commands('latency')


def test_the_stand_in_s_frames_give_the_accuracy_of_the_mujoco_robot(tmp_path: Path) -> None:
    """The same frames, once through topics as from Gazebo, once straight from the renderer."""
    from pruned_perception.inference.detector import Detector
    from pruned_perception.simulation.driver import open_context
    from pruned_perception.simulation.ground_truth import BoxFinder
    from pruned_perception.simulation.renderer import Renderer
    from pruned_perception.simulation.robot import Robot, build_scene

    try:
        open_context(640, 480)
    except UserError as error:
        pytest.skip(str(error))
    scene = build_scene(0)
    robot, renderer, finder = Robot(scene), Renderer(scene), BoxFinder(scene.objects)
    images, truths = [], []
    for step in range(400):
        eye = robot.step(step / 8).camera_pose()
        if step % 20 == 0:  # 20 places on the way
            renderer.look(eye, shadows=False)
            images.append(renderer.image())
            found = finder.find(renderer.object_numbers(), scene.camera, eye)
            truths.append(
                [
                    [x, y, x + w, y + h, item.class_id]
                    for item in found
                    if item.counts
                    for x, y, w, h in [item.box]
                ]
            )
    renderer.close()
    frames = write_frames(tmp_path / 'frames.npz', np.stack(images), truths)
    model = 'package://pruned_perception/models/warehouse'
    setup = gazebo.Setup(
        model=model,
        members=('tenth',),
        world=str(ROOT / 'worlds' / 'warehouse.sdf'),
        route='none',
        passes=('accuracy',),
        seconds=2.5,
    )
    [measured] = gazebo.measure(setup, make_commands=stand_in(frames)).passes
    bundle = load_member(resolve_model(model), 'tenth')
    detector = Detector(bundle)
    expected, published = {}, {}
    for index, (image, rows) in enumerate(zip(images, truths, strict=True)):
        expected[index] = [
            [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, 1.0, str(label)]
            for x0, y0, x1, y1, label in rows
        ]
        detections = detector.detect(image, 'rgb')[0]
        published[index] = [
            [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, score, str(label)]
            for (x0, y0, x1, y1), score, label in zip(
                detections.boxes.tolist(),
                detections.scores.tolist(),
                detections.class_ids.tolist(),
                strict=True,
            )
        ]
    straight = accuracy(
        expected, published, LABELS, score_threshold=bundle.thresholds.score, resamples=0
    )
    assert straight.ap50 > 0.3
    # The stand-in repeats the frames, and ends in the middle of a round.
    assert measured.accuracy.ap50 == pytest.approx(straight.ap50, abs=0.1)


@pytest.mark.parametrize(
    ('mode', 'message'),
    [
        ('black', 'image 1 of 5 is black'),
        ('silent', r'0 of 5 images on /g/image_raw within.*does the bridge of the camera deliver'),
        ('no_boxes', r'no boxes on /g/ground_truth within.*boundingbox_camera'),
        ('two_clocks', r'2 nodes publish /clock'),
    ],
)
def test_a_simulation_that_tells_nothing_is_refused(
    squares: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ros_environment: dict[str, str],
    mode: str,
    message: str,
) -> None:
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'PYTHONPATH'):
        monkeypatch.setenv(name, ros_environment[name])
    if mode in ('silent', 'no_boxes'):
        monkeypatch.setattr(gazebo_simulation, 'FRAME_S', 3.0)
    commands = stand_in(squares, mode)(Path(), None, 'accuracy', '/g', tmp_path)
    with (
        ros_session('test') as session,
        pytest.raises(UserError, match=f'(?s){message}'),
        Simulation(session, commands, tmp_path, '/g', 'accuracy'),
    ):
        raise AssertionError('it was not refused')


def test_gazebo_that_ends_while_it_is_measured_is_named(
    squares: Path, world: Path, tmp_path: Path
) -> None:
    model = write_tiny_bundle(tmp_path / 'bundle')
    setup = gazebo.Setup(
        model=str(model.path), world=str(world), route='none', passes=('accuracy',), seconds=60.0
    )
    with pytest.raises(UserError, match=r'(?s)gazebo ended with status 3.*simulator crashed'):
        gazebo.measure(setup, make_commands=stand_in(squares, 'dies'))


def watch(times: Sequence[float], *, ended: float) -> Watch:
    """Return a watch whose clock told these simulated seconds, one a second."""
    return Watch(
        clock=[(float(at), round(1e9 * time)) for at, time in enumerate(times)], ended=ended
    )


def test_a_time_that_goes_on_is_measured() -> None:
    steady = watch([0.0, 0.5, 1.0, 1.5], ended=3.0)
    steady.require_steady_time()
    assert steady.real_time_factor == pytest.approx(0.5)
    assert steady.simulated_s == pytest.approx(1.5)


def test_a_reset_and_a_pause_are_named() -> None:
    with pytest.raises(UserError, match=r'jumped back from 2\.000 to 0\.500 s.*reset'):
        watch([1.0, 2.0, 0.5, 1.0], ended=3.0).require_steady_time()
    with pytest.raises(UserError, match=r'stood still for the last 20 s.*paused'):
        watch([1.0, 2.0], ended=21.0).require_steady_time()
    with pytest.raises(UserError, match='stood still'):
        watch([2.0] * 10, ended=9.0).require_steady_time()


MS = 1_000_000


def crafted(sent: Sequence[int], lost: Sequence[int], superseded: int) -> Series:
    """Return what became of frames of these stamps, ns, 20 ms after each; two `lost` outside."""
    kept = [stamp for stamp in sent if stamp not in lost]
    line = dict.fromkeys((*FRAME_QUANTITIES, 'engine_wait'), 5 * MS)
    return Series(
        node='perception_node',
        sent=(),
        indices=(),
        counts={
            'received': len(kept) + superseded,
            'published': len(kept),
            'superseded': superseded,
            'stale': 0,
            'error': 0,
        },
        received={stamp: stamp + 20 * MS for stamp in kept[:-2]},
        boxes={},
        truth={},
        timings=[{**line, 'stamp_ns': stamp, 'model': 'tiny'} for stamp in kept],
        models=[],
        first_detection_s=1.0,
        cpu_percent=10.0,
        rss_mb=100.0,
    )


@pytest.mark.parametrize('factor', [0.5, 0.05])
def test_where_frames_stay_is_counted_stage_by_stage(tmp_path: Path, factor: float) -> None:
    """Of 61 frames due one was not bridged, three lost by the middleware, two superseded."""
    bundle = write_tiny_bundle(tmp_path / 'bundle')
    period = 1 / 30 / factor  # of the wall clock
    start = 1_800_000_000 * 10**9
    moments = [index * period for index in range(61)]
    stamps = [start + round(1e9 * at) for at in moments]
    seen = Watch(
        clock=[(index * period, round(index * 1e9 / 30)) for index in range(61)],
        infos=[(at, stamp) for at, stamp in zip(moments, stamps, strict=True) if at != moments[7]],
        images=[square_image('red', 80, 40, 120)],
        ended=moments[-1],
    )
    gone = [stamps[index] for index in (7, 20, 21, 22, 40, 41)]
    series = crafted(stamps, gone, superseded=2)
    facts = WorldFacts('w', 'a', 'b', 30.0, 640, 480, (0, 1, 2))
    found = gazebo.pass_result(gazebo.Setup('m'), facts, bundle, 'latency', series, seen)
    assert found.losses == gazebo.Losses(
        due=61, bridged=60, middleware=3, superseded=2, stale=0, error=0, published=55, received=53
    )
    assert found.real_time_factor == pytest.approx(factor)
    assert found.e2e_receive.p50 == pytest.approx(20.0)
    assert found.slow == (factor < 0.1)
    remarks = gazebo.slow_remarks(found)
    assert len(remarks) == found.slow
    assert all('0.050, below 0.1' in each for each in remarks)


def test_the_report_names_the_driver_that_renders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    assert gazebo_simulation.renderer() == 'ogre2'
    log = tmp_path / '.gz' / 'rendering' / 'ogre2.log'
    log.parent.mkdir(parents=True)
    log.write_text(  # as gz-rendering 8.2 writes it
        '17:21:26: GL_VERSION = 4.5 (Core Profile) Mesa 22.3.6\n'
        '17:21:26: GL_VENDOR = Mesa\n'
        '17:21:26: GL_RENDERER = llvmpipe (LLVM 15.0.6, 256 bits)\n'
    )
    assert gazebo_simulation.renderer() == (
        'ogre2 on llvmpipe (LLVM 15.0.6, 256 bits), 4.5 (Core Profile) Mesa 22.3.6'
    )


def test_a_dark_image_is_not_a_black_one() -> None:
    dark = np.full((48, 64, 3), 5, np.uint8)
    with pytest.raises(UserError, match='image 2 of 2 is black'):
        gazebo_simulation.require_light([np.full_like(dark, 90), dark])
    dark[:10] = 30
    gazebo_simulation.require_light([dark])


def test_without_gazebo_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    setup = gazebo.Setup(model='package://pruned_perception/models/warehouse', route='none')
    with pytest.raises(UserError, match=r'gz.*cannot be found: sudo apt install ros-jazzy-ros-gz'):
        gazebo.measure(setup)
