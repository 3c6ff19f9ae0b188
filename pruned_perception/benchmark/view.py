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


"""A page on this machine with the live image, its boxes, latency and drops.

One process: it subscribes to what the node draws while somebody looks at the page, and to no images
otherwise, so that the node does not draw for nobody. The server is the standard library's, and the
image is motion JPEG, which browsers show by themselves.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2

from pruned_perception import _pages as pages
from pruned_perception.benchmark.bag import message_class
from pruned_perception.benchmark.monitor import Camera, Monitor, Report
from pruned_perception.benchmark.session import Session, matching_qos
from pruned_perception.errors import UserError
from pruned_perception.inference.encodings import image_from_message
from pruned_perception.nodes.image_input import TYPE_NAMES

HOST = '127.0.0.1'
WINDOW_S = 5.0  # that figures go over
_QUALITY = 80
_LOOK_S = 0.2
_SILENCE_S = 1.0  # after which a stream looks whether its browser is still there
_BOUNDARY = 'frame'
_POLICY = (
    "default-src 'none'; img-src 'self'; connect-src 'self'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; frame-ancestors 'none'"
)


class Picture:
    """The newest JPEG, and how many look at it."""

    def __init__(self) -> None:
        self.watchers = 0
        self._data: bytes | None = None
        self._number = 0
        self._changed = threading.Condition()

    def put(self, data: bytes) -> None:
        """Show another picture."""
        with self._changed:
            self._data, self._number = data, self._number + 1
            self._changed.notify_all()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Count one who looks."""
        with self._changed:
            self.watchers += 1
        try:
            yield
        finally:
            with self._changed:
                self.watchers -= 1

    def after(self, number: int, timeout: float) -> tuple[int, bytes | None]:
        """Return the newest picture after that number, once there is one; None after `timeout`."""
        with self._changed:
            there = self._changed.wait_for(lambda: self._number > number, timeout)
            return self._number, self._data if there else None


class View:
    """What the page shows: the monitor's figures of a camera, and what its node draws."""

    def __init__(self, session: Session, namespaces: Sequence[str] = ()) -> None:
        self.picture = Picture()
        self._session = session
        self._monitor = Monitor(session, namespaces)
        self._subscription: Any = None
        self._state = '{"cameras": [], "trouble": "starting"}'

    @property
    def state(self) -> bytes:
        """JSON: `cameras`, the monitor's reports; `trouble`, why there is none."""
        return self._state.encode()

    def spin(self) -> None:
        """Observe until the session ends."""
        while self._session.running:
            self._monitor.look()
            self._session.spin_for(_LOOK_S)
            reports = self._monitor.reports(WINDOW_S)
            self._state = as_json(reports, '' if reports else self._monitor.nothing)
            self._follow()

    def _follow(self) -> None:
        """Subscribe to what the node draws while somebody looks."""
        cameras = [camera for camera in self._monitor.cameras.values() if camera.node]
        if not (self.picture.watchers and cameras):
            if self._subscription is not None:
                self._session.node.destroy_subscription(self._subscription)
                self._subscription = None
        elif self._subscription is None:
            self._subscription = self._subscribed(cameras[0])

    def _subscribed(self, camera: Camera) -> Any:
        topic = f'{camera.node}/annotated_image'
        node = self._session.node
        publishers = node.get_publishers_info_by_topic(topic)
        if not publishers:
            return None
        kind = message_class(TYPE_NAMES['raw'])
        return node.create_subscription(kind, topic, self._show, matching_qos(publishers, 1))

    def _show(self, message: Any) -> None:
        image, order = image_from_message(message)
        shown = image[..., ::-1] if order == 'rgb' else image
        _, data = cv2.imencode('.jpg', shown, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        self.picture.put(data.tobytes())


def as_json(reports: Sequence[Report], trouble: str) -> str:
    """Return what the page asks for once a second."""
    return json.dumps({'cameras': [asdict(each) for each in reports], 'trouble': trouble})


def open_server(view: View, port: int) -> ThreadingHTTPServer:
    """Return the server, on this machine alone; 0 takes any free port.

    Raises:
        UserError: the port is taken.
    """

    class Handler(_Handler):
        shown = view

    try:
        server = ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise UserError(
            f'--port {port}: {error.strerror}: give another one, or 0 for any'
        ) from error
    server.daemon_threads = True
    return server


class _Handler(BaseHTTPRequestHandler):
    """`/`, `/state` and `/image`."""

    shown: View
    protocol_version = 'HTTP/1.1'

    def do_GET(self) -> None:
        """Answer requests that were meant for this machine, not those of a page elsewhere."""
        host = (self.headers.get('Host') or '').rpartition(':')[0]
        if host not in (HOST, 'localhost'):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        elif self.path == '/':
            self._send('text/html; charset=utf-8', pages.render('benchmark/view.html').encode())
        elif self.path == '/state':
            self._send('application/json', self.shown.state)
        elif self.path == '/image':
            self._stream()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, *_: Any) -> None:
        """Say nothing of each request."""

    def _headers(self, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header('Content-Type', kind)
        self.send_header('Cache-Control', 'no-store')
        self.send_header('Content-Security-Policy', _POLICY)

    def _send(self, kind: str, content: bytes) -> None:
        self._headers(kind)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self) -> None:
        self.close_connection = True
        self._headers(f'multipart/x-mixed-replace; boundary={_BOUNDARY}')
        self.end_headers()
        number = 0
        with self.shown.picture.watched(), contextlib.suppress(ConnectionError):
            while True:
                number, data = self.shown.picture.after(number, _SILENCE_S)
                if data is None:
                    self.wfile.write(b'\r\n')  # fails where nobody is there any more
                    continue
                head = f'--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}'
                self.wfile.write(f'{head}\r\n\r\n'.encode() + data + b'\r\n')
