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

"""A session for a network namespace with nothing but loopback: node, camera, detections.

Run by test_node_process.py inside the namespace: `loopback_session.py BUNDLE LOG`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the tiny detector's module

import rclpy
from ros_harness import NodeProcess, Observer, image_message, new_context
from tiny_detector import square_image


def main(bundle: str, log: str) -> int:
    interfaces = Path('/proc/net/dev').read_text().splitlines()[2:]
    print('interfaces:', ' '.join(line.split(':')[0].strip() for line in interfaces))
    context = new_context()
    observer = Observer(context, '/loopback')
    process = NodeProcess(Path(log), 'perception_node', '/loopback', {'model': bundle})
    try:
        message = image_message(square_image('red', 80, 40, 120))
        array = observer.detect(observer.camera(), message)
        print('detections:', len(array.detections))
        return process.stop()
    finally:
        process.kill()
        print(process.output, file=sys.stderr)
        observer.close()
        rclpy.try_shutdown(context=context)


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
