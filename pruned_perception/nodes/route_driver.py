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

"""The executable `route_driver`: drives a robot along a closed route, whatever moves it."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pruned_perception.errors import UserError
from pruned_perception.nodes import node_process

if TYPE_CHECKING:
    from rclpy.node import Node


def create_node() -> Node:
    """Return the node; its imports take most of the start, so they wait until signals are ours."""
    from geometry_msgs.msg import PoseStamped, Twist
    from rclpy.duration import Duration
    from rclpy.node import Node

    from pruned_perception.nodes.parameter_declaration import NodeParameters
    from pruned_perception.nodes.parameters import DRIVER_PARAMETERS
    from pruned_perception.simulation.robot import State
    from pruned_perception.simulation.route import Follower, read_route

    class RouteDriver(Node):
        """Answers each `pose` (geometry_msgs/PoseStamped) with a `cmd_vel` (Twist)."""

        def __init__(self) -> None:
            super().__init__('route_driver')
            self.parameters = NodeParameters(
                self,
                DRIVER_PARAMETERS,
                is_active=lambda: True,
                refuse=lambda changes: None,
                changed=lambda changes: None,
            )
            route = self.parameters['route']
            if not route:
                raise UserError('parameter route is empty: give a file of points x,y')
            self._follower = Follower(read_route(Path(route).expanduser()))
            self._commands = self.create_publisher(Twist, 'cmd_vel', 1)
            self.create_subscription(PoseStamped, 'pose', self._on_pose, 1)

        def stop(self) -> None:
            """Stop the robot, which would drive on as last told."""
            self._commands.publish(Twist())
            self._commands.wait_for_all_acked(Duration(seconds=1.0))

        def _on_pose(self, message: PoseStamped) -> None:
            q = message.pose.orientation
            yaw = math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y * q.y + q.z * q.z))
            state = State(message.pose.position.x, message.pose.position.y, yaw)
            command = Twist()
            command.linear.x, command.angular.z = self._follower.command(
                state, self.parameters['speed']
            )
            self._commands.publish(command)

    return RouteDriver()


def main(args: Sequence[str] | None = None) -> int:
    """Run the node; 0 after Ctrl-C or SIGTERM, 1 where it cannot start (no such route)."""
    return node_process.run(create_node, args)


if __name__ == '__main__':
    sys.exit(main())
