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

"""ROS domains for tests: no other test process on this machine is in them."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

_claimed: list[IO[str]] = []


def claim_domain() -> int:
    """Return a domain, 1 … 100, that is this process's until it ends."""
    for offset in range(100):
        domain = 1 + (os.getpid() + offset) % 100
        path = Path(tempfile.gettempdir(), f'ros_domain_{domain}.lock')
        try:
            lock = path.open('w')  # closed, and so unlocked, when it is forgotten
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody has it, or another user's file is there
            continue
        _claimed.append(lock)
        return domain
    raise RuntimeError('test processes have claimed all ROS domains from 1 to 100')


DOMAIN = claim_domain()
