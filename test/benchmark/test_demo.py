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

"""The demonstration from end to end, with a robot and detectors small enough for a test."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs')
pytest.importorskip('rosbags')
pytest.importorskip('pycocotools')
pytest.importorskip('matplotlib')

from pruned_perception.benchmark.demo import Settings, demonstrate, load_demonstration
from pruned_perception.benchmark.report import write_report
from pruned_perception.errors import UserError

HERE = Path(__file__).parent
START_TIMEOUT_S = '60'

pytestmark = pytest.mark.ros


@pytest.fixture
def demo(start: Callable[..., Any], tiny_family: Path, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that starts the demonstration with the command of some robot."""
    return lambda *robot, timeout=START_TIMEOUT_S: start(
        HERE / 'run_demo.py', tmp_path / 'out', tiny_family, timeout, *robot
    )


@pytest.fixture
def loopback_only() -> list[str]:
    """Return what to put before a command so that it has no network but loopback."""
    prefix = ['unshare', '--map-root-user', '--net', sys.executable, str(HERE / 'loopback_only.py')]
    try:
        tried = subprocess.run([*prefix, 'true'], capture_output=True, check=False)
    except FileNotFoundError:
        return []
    return [] if tried.returncode else prefix


def test_from_camera_to_report(
    ros_environment: dict[str, str], tiny_family: Path, tmp_path: Path, loopback_only: list[str]
) -> None:
    """The whole chain; without any network but loopback, where the system lets us take it away."""
    robot = (sys.executable, HERE / 'moving_squares.py')
    arguments = (HERE / 'run_demo.py', tmp_path / 'out', tiny_family, START_TIMEOUT_S, *robot)
    process = subprocess.run(
        [*loopback_only, sys.executable, *map(str, arguments)],
        env=ros_environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    summary, err = process.stdout, process.stderr
    assert process.returncode == 0, err
    out = tmp_path / 'out'

    document = json.loads((out / 'latency.json').read_text())
    live, dense, small = document['runs']
    assert [run['name'] for run in (live, dense, small)] == ['live', 'dense', 'small']
    assert [run['clock'] for run in (live, dense, small)] == ['system', 'restamped', 'restamped']
    assert (live['model'], dense['model'], small['model']) == ('dense', 'dense', 'small')
    recorded = document['input']['topics']['/robot/image_raw']
    assert set(document['input']['lost_while_recording'].values()) == {0}
    for run in (live, dense, small):
        frames = run['frames']
        assert frames['sent'] == recorded or run is live
        dropped = frames['superseded'] + frames['stale'] + frames['error']
        assert frames['published'] + dropped + frames['middleware_loss'] == frames['sent']
    for run in (dense, small):
        frames = run['frames']
        # A starved machine may lose some; what is promised is that the account above holds.
        assert frames['middleware_loss'] <= frames['sent'] // 4
        assert frames['received'] == frames['published']
    for run in (live, dense, small):
        # The detector finds every square exactly: anything less is a mix-up of stamps or boxes.
        assert run['accuracy']['images'] > 10
        assert run['accuracy']['ap50'] == run['accuracy']['ap50_95'] == pytest.approx(1)
        latency = run['latency_ms']
        assert latency['e2e_receive']['p50'] > latency['inference']['p50'] > 0
        assert latency['overhead']['n'] > 0
    assert dense['accuracy']['images'] == small['accuracy']['images']
    hashes = {model['onnx_sha256'] for model in document['models']}
    assert len(hashes) == 2
    assert document['environment']['cores']

    page = (out / 'report.html').read_text()
    assert page.count('<svg') == 5
    assert page.count('data:image/jpeg;base64,') == 3
    assert '$' not in re.sub(r'<svg.*?</svg>|base64,[^"]*', '', page, flags=re.S)
    outside = re.findall(r'(?:src|href)="(?!data:|#)[^"]*"|url\((?!#)[^)]*\)', page)
    assert outside == [], 'the page must fetch nothing'
    assert len(list((out / 'frames').glob('*.png'))) == 3
    assert 'AP50' in summary
    assert str(out / 'report.html') in summary

    # The page can be made again from the folder alone.
    again = load_demonstration(out)
    assert again.document == document
    (out / 'report.html').unlink()
    assert write_report(again, pictures=2).exists()
    assert len(list((out / 'frames').glob('*.png'))) == 2


def test_a_robot_that_ends_early_is_named(demo: Callable[..., Any]) -> None:
    process = demo(sys.executable, '-c', "raise SystemExit('no GL driver: install libegl1')")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'robot ended with status 1' in err
    assert 'no GL driver: install libegl1' in err


def test_a_silent_robot_fails_with_the_reason(demo: Callable[..., Any]) -> None:
    process = demo(sys.executable, '-c', 'import time; time.sleep(100)', timeout='10')
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'no detections arrived in the run "live"' in err
    assert 'nobody publishes /robot/' in err


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupting_leaves_no_process_behind(
    demo: Callable[..., Any], number: signal.Signals
) -> None:
    process = demo(sys.executable, HERE / 'moving_squares.py')
    end = time.monotonic() + 120
    children: list[psutil.Process] = []
    while len(children) < 4 and time.monotonic() < end:
        time.sleep(0.1)
        children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 4
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 130
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


def test_what_cannot_work_is_refused_at_once(tiny_family: Path, tmp_path: Path) -> None:
    def never(*_: object) -> None:
        raise AssertionError('nothing should have been started')

    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot write to'):
        demonstrate(Settings(tmp_path / 'file' / 'out', str(tiny_family)), never)
    with pytest.raises(UserError, match='no member'):
        demonstrate(Settings(tmp_path / 'out', str(tiny_family), member='tiny'), never)
    with pytest.raises(UserError, match=r'MiB free, and a bag of 1e\+12 s'):
        demonstrate(Settings(tmp_path / 'out', str(tiny_family), seconds=1e12), never)
    with pytest.raises(UserError, match='holds no whole demonstration'):
        load_demonstration(tmp_path)
