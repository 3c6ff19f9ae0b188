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

"""The monitor's arithmetic, and what it sees of real nodes over DDS."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ros_domain import claim_domain

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs')

from pruned_perception.benchmark.monitor import Balance, Camera, Names, Report
from pruned_perception.benchmark.recorder import Received
from pruned_perception.bundle import Bundle
from pruned_perception.cli import monitor as monitor_command
from pruned_perception.cli.main import main
from pruned_perception.cli.monitor import describe, table
from pruned_perception.inference.latency import summarize

HERE = Path(__file__).parent
NODE = 'pruned_perception.nodes.perception_node'

pytestmark = pytest.mark.ros


def counters(received: int, published: int, superseded: int = 0) -> dict[str, int]:
    return {
        'received': received,
        'published': published,
        'superseded': superseded,
        'stale': 0,
        'error': 0,
    }


def test_balance_of_what_was_sent() -> None:
    start = Balance(10, counters(5, 5))
    now = Balance(40, counters(30, 25, 4), waiting=1)
    balance = now.since(start)
    assert balance['sent'] == 30
    assert balance['published'] == 20
    assert balance['drops'] == {'superseded': 4, 'stale': 0, 'error': 0}
    assert balance['loss_in'] == 30 - 20 - 4 - 1


def test_uncounted_frames_make_no_loss() -> None:
    balance = Balance(None, counters(30, 30)).since(Balance(None, counters(0, 0)))
    assert (balance['sent'], balance['published'], balance['loss_in']) == (None, 30, None)
    late = Balance(10, counters(30, 30)).since(Balance(None, counters(0, 0)))
    assert late['loss_in'] == 0


def frames_status(**values: int) -> Any:
    from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(
        level=DiagnosticStatus.OK,
        name='/front/perception_node: frames',
        hardware_id='/front/perception_node',
        values=pairs,
    )


def test_a_restarted_node_starts_a_new_balance() -> None:
    node = SimpleNamespace(get_parameter=lambda _: SimpleNamespace(value=False))
    camera = Camera(SimpleNamespace(node=node), '/front', Names(), 'camera_info', None)  # type: ignore[arg-type]
    camera.node = '/front/perception_node'
    camera.counted = Received(count=0)
    camera.on_diagnostics([frames_status(**counters(0, 0), waiting=0)])
    assert camera.report(1.0).sent is None  # nobody has seen a frame yet
    camera.counted.count = 10
    camera.on_diagnostics([frames_status(**counters(9, 9), waiting=0)])
    camera.counted.count = 110
    camera.on_diagnostics([frames_status(**counters(104, 100, 3), waiting=1)])
    found = camera.report(1.0)
    # From the second message on: 100 sent, 91 published, 3 superseded, 1 waits; so 5 are lost.
    assert (found.sent, found.published, found.loss_in) == (100, 91, 5)
    camera.counted.count = 210
    camera.on_diagnostics([frames_status(**counters(60, 60), waiting=0)])
    camera.counted.count = 220
    camera.on_diagnostics([frames_status(**counters(70, 70), waiting=0)])
    found = camera.report(1.0)
    assert (found.sent, found.published, found.loss_in) == (10, 10, 0)
    assert found.counters['published'] == 70


def test_diagnostics_of_others_are_not_taken_for_the_nodes() -> None:
    node = SimpleNamespace(get_parameter=lambda _: SimpleNamespace(value=False))
    camera = Camera(SimpleNamespace(node=node), '/rear', Names(), 'none', None)  # type: ignore[arg-type]
    camera.node = '/rear/perception_node'
    camera.on_diagnostics([frames_status(**counters(9, 9))])
    assert camera.report(1.0).published is None
    assert camera.status is None


def report(**changes: Any) -> Report:
    values: dict[str, Any] = {
        'namespace': '/front',
        'node': '/front/perception_node',
        'model': 'dense',
        'clock': 'system',
        'rate_in': 15.0,
        'rate_out': 14.9,
        'sent': 150,
        'published': 149,
        'received': 149,
        'e2e_receive': summarize([10.0, 12.0, 14.0], resamples=0),
        'invalid_stamps': 0,
        'stages': {'inference': {'p50': 8.0, 'p90': 9.0, 'p99': 10.0}},
        'means': {},
        'drops': {'superseded': 1, 'stale': 0, 'error': 0},
        'loss_in': 0,
        'loss_out': 0,
        'counters': {},
        'status': ('OK', 'working'),
        'cpu_percent': None,
        'rss_mib': None,
        'trouble': None,
    }
    return Report(**{**values, **changes})


def test_line_and_table_show_the_evidence_against_the_certificate() -> None:
    from rich.console import Console

    line = 'evidence against the certificate: 12 of 100 needed'
    watched = report(watch=line, status=('WARN', line))
    assert describe(watched).count(line) == 1
    assert 'evidence' not in describe(report())
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table([watched]))
    assert line in capture.get()


def test_line_and_table_show_what_the_middleware_lost() -> None:
    from rich.console import Console

    node = SimpleNamespace(get_parameter=lambda _: SimpleNamespace(value=False))
    camera = Camera(SimpleNamespace(node=node), '/front', Names(), 'none', None)  # type: ignore[arg-type]
    camera.node = '/front/perception_node'
    camera.on_diagnostics([frames_status(**counters(50, 23), lost=100)])
    assert camera.report(1.0).lost_on_the_way == 100
    assert '100 lost by the middleware before the node' in describe(report(lost_on_the_way=100))
    assert 'by the middleware' not in describe(report(lost_on_the_way=0))
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table([report(lost_on_the_way=100)]))
    assert any('by the middleware' in line and '100' in line for line in capture.get().split('\n'))


def test_names_of_others_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    lines = monitor_command._Lines()
    lines.update([], SimpleNamespace(nothing='seen: /\x1b[2Jevil'))  # type: ignore[arg-type]
    lines.finish([report(namespace='/\x1b[2J')], None)  # type: ignore[arg-type]
    shown = capsys.readouterr().out
    assert shown.count(r'\x1b[2J') == 2
    assert shown.replace('\n', '').isprintable()


def test_line_and_table_show_the_figures() -> None:
    from rich.console import Console

    line = describe(report())
    assert 'in 15.0 out 14.9 Hz' in line
    assert 'e2e p50 12.0' in line
    assert 'dropped 1 superseded' in line
    console = Console(record=True, width=120, file=open('/dev/null', 'w'))  # noqa: PTH123, SIM115
    console.print(table([report(), report(namespace='/rear', trouble='no camera')]))
    text = console.export_text()
    for expected in ('/front', '/rear', '12.0 / 13.6 / 14.0', '8.00 / 9.00 / 10.00', 'no camera'):
        assert expected in text
    json.dumps(asdict(report()))


def test_absent_figures_are_shown_as_unknown() -> None:
    silent = report(
        **dict.fromkeys(('model', 'rate_in', 'sent', 'e2e_receive', 'drops', 'loss_in', 'status')),
        stages={},
        trouble='nobody publishes /front/detections',
    )
    assert 'NOTHING ARRIVES: nobody publishes' in describe(silent)
    assert 'in – out' in describe(silent)


def last(output: str) -> dict[str, Any]:
    totals: dict[str, Any] = json.loads(output.splitlines()[-1])
    return totals


def test_a_node_and_its_camera(
    tiny_bundle: Bundle, tmp_path: Path, start: Callable[..., Any], cli: Callable[..., Any]
) -> None:
    """Everything there is to know of a working camera, from outside, in a few seconds.

    The camera has a namespace of its own, which only the graph tells.
    """
    remapped = ('--ros-args', '-r', '__ns:=/front', '-r', 'image_raw:=/front_camera/image_raw')
    start('-m', NODE, *remapped, '-p', f'model:={tiny_bundle.path}')
    start(HERE / 'moving_squares.py', '--ros-args', '-r', '__ns:=/front_camera')
    records = tmp_path / 'records'
    monitor = cli('monitor', '--duration', '8', '--json', '--records', records)
    out, err = monitor.communicate(timeout=60)
    assert monitor.returncode == 0, err
    (camera,) = last(out)['totals']
    assert camera['namespace'] == '/front'
    assert camera['node'] == '/front/perception_node'
    assert camera['model'] == tiny_bundle.name
    assert camera['trouble'] is None
    assert camera['received'] > 20
    assert camera['e2e_receive']['n'] == camera['received']
    assert camera['e2e_receive']['p50'] > 0
    assert camera['invalid_stamps'] == 0
    assert camera['stages']['inference']['p50'] > 0
    assert camera['means']['inference'] > 0
    # Both are read while frames are under way: within half a second of the camera's 15 Hz.
    assert abs(camera['sent'] - camera['published'] - sum(camera['drops'].values())) <= 8
    assert camera['published'] > 0
    assert camera['rate_in'] > 5
    assert camera['loss_in'] is not None
    assert camera['loss_out'] == 0
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert len(lines) == camera['received']
    assert all(len(line['boxes']) == 1 for line in lines)


def test_silence_is_explained(
    tiny_bundle: Bundle,
    start: Callable[..., Any],
    cli: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    start('-m', NODE, '--ros-args', '-r', '__ns:=/idle', '-p', f'model:={tiny_bundle.path}')
    wrong = (
        'import rclpy; from std_msgs.msg import String; rclpy.init(); '
        'from sensor_msgs.msg import CompressedImage; '
        "node = rclpy.create_node('other'); node.create_publisher(String, '/odd/detections', 1); "
        "node.create_publisher(CompressedImage, '/left_camera/image_raw/compressed', 1); "
        'rclpy.spin(node)'
    )
    start('-c', wrong)
    monitor = cli('monitor', '/idle', '/odd', '/empty', '--duration', '6', '--json')
    out, err = monitor.communicate(timeout=60)
    assert monitor.returncode == 1, err
    trouble = {each['namespace']: each['trouble'] for each in last(out)['totals']}
    assert 'nobody publishes /idle/image_raw' in trouble['/idle']
    advice = trouble['/idle'].partition(': pruned-perception ')[2]
    assert main([*advice.split(), '--print']) == 0
    printed = capsys.readouterr().out
    assert '-r __ns:=/idle -r image_raw:=/left_camera/image_raw' in printed
    assert 'image_transport:="compressed"' in printed
    assert 'has type std_msgs/msg/String' in trouble['/odd']
    assert 'nobody publishes /empty/detections' in trouble['/empty']
    assert '/idle/perception_node' in trouble['/empty']


def test_an_empty_graph_names_the_domain(cli: Callable[..., Any]) -> None:
    domain = str(claim_domain())
    monitor = cli('monitor', '--duration', '2', ROS_DOMAIN_ID=domain)
    out, _ = monitor.communicate(timeout=30)
    assert monitor.returncode == 1
    assert f'no other node is seen at all (ROS_DOMAIN_ID {domain}' in out


def test_records_that_cannot_be_written(cli: Callable[..., Any]) -> None:
    monitor = cli('monitor', '--records', Path(sys.executable) / 'records')
    _, err = monitor.communicate(timeout=30)
    assert monitor.returncode == 1
    assert 'cannot write' in err
