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
