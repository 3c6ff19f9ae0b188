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


"""`pruned-perception view`: a page on this machine with live image, boxes, latency and drops."""

from __future__ import annotations

import argparse
import threading

from pruned_perception.benchmark.session import ros_session
from pruned_perception.benchmark.view import HOST, View, open_server
from pruned_perception.cli.arguments import at_least, namespace
from pruned_perception.cli.output import say

PORT = 8765


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'namespace', nargs='?', type=namespace, help='camera, e.g. /front (default: the first one)'
    )
    parser.add_argument(
        '--port', type=at_least(0, 65535), default=PORT, help='default %(default)s; 0: any'
    )
    parser.add_argument('--enclave', default='', help='security enclave (docs/security.md)')
    parser.add_argument('--use-sim-time', action='store_true', help='ages by /clock')


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    with ros_session(
        'perception_view', use_sim_time=args.use_sim_time, enclave=args.enclave
    ) as session:
        view = View(session, [args.namespace] if args.namespace else ())
        server = open_server(view, args.port)
        say(f'http://{HOST}:{server.server_port}  (this machine alone; Ctrl-C ends)')
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            view.spin()
        finally:
            server.shutdown()
            server.server_close()
    return 0
