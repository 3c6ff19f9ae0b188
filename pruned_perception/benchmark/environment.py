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

"""Where a figure was measured: written into every result file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import datetime, timezone
from typing import Any

from pruned_perception.inference.processor import integer_arithmetic, processor_name

_PACKAGES = ('numpy', 'onnxruntime', 'opencv-python-headless', 'ros-rclpy', 'rclpy', 'ros-fastdds')
_VARIABLES = (
    'ROS_DISTRO',
    'ROS_DOMAIN_ID',
    'ROS_AUTOMATIC_DISCOVERY_RANGE',
    'RMW_IMPLEMENTATION',
    'FASTDDS_DEFAULT_PROFILES_FILE',
    'FASTDDS_BUILTIN_TRANSPORTS',
    'OMP_NUM_THREADS',
)


def environment() -> dict[str, Any]:
    """Return CPU, cores, memory, OS, versions and the variables that change results."""
    return {
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'cpu': processor_name(),
        'integer_arithmetic': integer_arithmetic(),
        'cores': os.cpu_count(),
        'cores_usable': len(os.sched_getaffinity(0)),
        'load_average': [round(each, 2) for each in os.getloadavg()],
        'os': platform.platform(),
        'python': platform.python_version(),
        'versions': _versions(),
        'variables': {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
