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

"""The control of `benchmark soak`: what rclpy and the middleware grow by themselves.

A node that publishes diagnostics once a second, as many as the perception node's and made anew each
time, and does nothing else. Run as `python bare_publisher.py TOPIC`; deliberately free of this
package.
"""

import contextlib
import sys

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile

PERIOD_S = 1.0
STATUSES, VALUES = 11, 8


def main() -> None:
    """Publish until the process is told to end."""
    rclpy.init(args=sys.argv)
    node = Node('bare_publisher')
    publisher = node.create_publisher(DiagnosticArray, sys.argv[1], QoSProfile(depth=10))
    sent = 0

    def report() -> None:
        nonlocal sent
        sent += 1
        message = DiagnosticArray()
        message.header.stamp = node.get_clock().now().to_msg()
        message.status = [
            DiagnosticStatus(
                name=f'bare_publisher: {number}',
                values=[KeyValue(key=f'{k}', value=f'{sent}') for k in range(VALUES)],
            )
            for number in range(STATUSES)
        ]
        publisher.publish(message)

    node.create_timer(PERIOD_S, report)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)


if __name__ == '__main__':
    main()
