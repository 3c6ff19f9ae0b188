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

"""What of the machine a process may use, and how much of it is taken."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores(cgroup: Path = Path('/sys/fs/cgroup')) -> int:
    """Return how many cores this process may use: its affinity, and a container's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / 'cpu.max').read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no such limit, or none ('max')
        return cores


def processor_times() -> tuple[int, int] | None:
    """Return the idle and the whole time of all processors since boot, in ticks (proc(5))."""
    try:
        first = Path('/proc/stat').read_text().partition('\n')[0]
        user, nice, system, idle, waiting, *rest = (int(word) for word in first.split()[1:9])
    except (OSError, ValueError):
        return None
    return idle + waiting, user + nice + system + idle + waiting + sum(rest)
