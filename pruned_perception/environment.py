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

"""Environment variables: no telemetry, where ROS packages are, where to keep what saves time."""

from __future__ import annotations

import os
import sys
from pathlib import Path

TELEMETRY_SWITCH = 'ORT_DISABLE_TELEMETRY'
"""ONNX Runtime reads it once, when it is imported, and nothing can be switched off later."""

_TRUE = ('1', 'true', 'yes', 'on', 'y')
_telemetry_came_first = False


def switch_telemetry_off() -> None:
    """Forbid ONNX Runtime (1.29 and later) to send telemetry, whatever the variable said before.

    Without it, it looks up and contacts a server of its maker some seconds after its import, and
    keeps an identifier of the machine in the user's cache. Child processes inherit the variable.
    """
    global _telemetry_came_first
    off = os.environ.get(TELEMETRY_SWITCH, '').strip().lower() in _TRUE
    _telemetry_came_first |= 'onnxruntime' in sys.modules and not off
    os.environ[TELEMETRY_SWITCH] = '1'


def telemetry_came_first() -> bool:
    """Whether somebody imported ONNX Runtime before this package, with its telemetry on."""
    return _telemetry_came_first


def add_own_prefix() -> None:
    """Append this Python environment to AMENT_PREFIX_PATH if ROS packages are installed in it.

    Nothing in a pip environment sets that variable. Last, so that a workspace that was sourced
    keeps its precedence. Every entry point calls this before it imports rclpy; child processes
    inherit it.
    """
    if not Path(sys.prefix, 'share', 'ament_index').is_dir():
        return
    prefixes = [each for each in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if each]
    if not any(os.path.realpath(each) == os.path.realpath(sys.prefix) for each in prefixes):
        os.environ['AMENT_PREFIX_PATH'] = os.pathsep.join([*prefixes, sys.prefix])


CACHE = 'PRUNED_PERCEPTION_CACHE'


def cache_folder() -> Path:
    """Return where data sets and runs are kept: $PRUNED_PERCEPTION_CACHE or ~/.cache."""
    return Path(os.environ.get(CACHE) or Path.home() / '.cache' / 'pruned_perception').expanduser()


def place_for(name: str, folder: Path) -> Path:
    """Return where to keep a file that only saves time.

    In `folder`, beside what it was made of; in the cache's where that cannot be written.
    """
    return (folder if os.access(folder, os.W_OK) else cache_folder() / 'derived') / name
