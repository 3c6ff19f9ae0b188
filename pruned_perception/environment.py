"""What a pip environment lacks for ROS 2: nothing there sets AMENT_PREFIX_PATH."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def add_own_prefix() -> None:
    """Append this Python environment to AMENT_PREFIX_PATH if ROS packages are installed in it.

    Last, so that a workspace that was sourced keeps its precedence. Every entry point calls this
    before it imports rclpy; child processes inherit it.
    """
    if not Path(sys.prefix, 'share', 'ament_index').is_dir():
        return
    prefixes = [each for each in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if each]
    if not any(os.path.realpath(each) == os.path.realpath(sys.prefix) for each in prefixes):
        os.environ['AMENT_PREFIX_PATH'] = os.pathsep.join([*prefixes, sys.prefix])
