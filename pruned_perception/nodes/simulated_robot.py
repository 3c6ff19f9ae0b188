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

"""The executable `simulated_robot`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pruned_perception.nodes import node_process

if TYPE_CHECKING:
    from rclpy.node import Node


def create_node() -> Node:
    """Return the node; its imports take most of the start, so they wait until signals are ours."""
    from pruned_perception.nodes.robot import SimulatedRobot

    return SimulatedRobot()


def main(args: Sequence[str] | None = None) -> int:
    """Run the node; 0 after Ctrl-C or SIGTERM, 1 where it cannot start (no OpenGL driver)."""
    return node_process.run(create_node, args, is_camera=True)


if __name__ == '__main__':
    sys.exit(main())
