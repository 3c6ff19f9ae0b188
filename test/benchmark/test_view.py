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


"""`view`: the page, its figures and its live image, over HTTP."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs')
pytest.importorskip('jinja2')

from pruned_perception.benchmark.view import Picture
from pruned_perception.bundle import Bundle

HERE = Path(__file__).parent
NODE = 'pruned_perception.nodes.perception_node'
pytestmark = pytest.mark.ros


def get(port: int, path: str, host: str | None = None) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=20)
    connection.request('GET', path, headers={'Host': host} if host else {})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def test_a_camera_in_the_browser(
    tiny_bundle: Bundle, start: Callable[..., Any], cli: Callable[..., Any]
) -> None:
    remapped = ('--ros-args', '-r', '__ns:=/front', '-r', 'image_raw:=/front_camera/image_raw')
    start('-m', NODE, *remapped, '-p', f'model:={tiny_bundle.path}')
    start(HERE / 'moving_squares.py', '--ros-args', '-r', '__ns:=/front_camera')
    view = cli('view', '/front', '--port', '0')
    said = view.stdout.readline()
    assert said.startswith('http://127.0.0.1:')
    port = int(re.findall(r':(\d+)', said)[0])

    status, headers, page = get(port, '/')
    assert status == 200
    assert "default-src 'none'" in headers['Content-Security-Policy']
    assert b'src="/image"' in page
    assert not re.search(rb'(?:src|href)="(?!/image")|https?://', page)
    assert get(port, '/elsewhere')[0] == 404
    # A page of somebody else, whose name leads here, must not read the robot's images.
    assert get(port, '/state', host=f'evil.example:{port}')[0] == 421

    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    connection.request('GET', '/image')
    stream = connection.getresponse()
    assert 'multipart/x-mixed-replace' in stream.headers['Content-Type']
    length = 0
    while not length:
        line = stream.readline()
        if line.startswith(b'Content-Length'):
            length = int(line.split(b':')[1])
    assert stream.readline() == b'\r\n'
    image = cv2.imdecode(np.frombuffer(stream.read(length), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (480, 640, 3)
    assert (image.max(axis=2) > 200).sum() > 100 * 100  # the square, with its box

    end = time.monotonic() + 30
    camera: dict[str, Any] = {}
    while not camera.get('published') and time.monotonic() < end:
        camera = next(iter(json.loads(get(port, '/state')[2])['cameras']), {})
        time.sleep(0.2)
    assert camera['namespace'] == '/front'
    assert camera['model'] == tiny_bundle.name
    assert camera['rate_out'] > 0
    assert camera['e2e_receive']['p50'] > 0


def test_who_looks_is_counted_and_gets_the_newest_picture() -> None:
    picture = Picture()
    with picture.watched():
        assert picture.watchers == 1
        assert picture.after(0, 0.01) == (0, None)
        picture.put(b'one')
        picture.put(b'two')
        assert picture.after(0, 0.01) == (2, b'two')
        assert picture.after(2, 0.01) == (2, None)
    assert picture.watchers == 0


def test_a_port_that_is_taken(cli: Callable[..., Any]) -> None:
    first = cli('view', '--port', '0')
    port = re.findall(r':(\d+)', first.stdout.readline())[0]
    second = cli('view', '--port', port)
    _, err = second.communicate(timeout=30)
    assert second.returncode == 1
    assert f'--port {port}: ' in err
    assert 'give another one' in err
