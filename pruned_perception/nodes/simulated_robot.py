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
    return node_process.run(create_node, args)


if __name__ == '__main__':
    sys.exit(main())
