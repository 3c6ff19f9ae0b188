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

"""Run a command in a network namespace that has nothing but loopback: `loopback_only.py COMMAND…`.

Started by `unshare --map-root-user --net`, so that it may bring loopback up.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1

with socket.socket() as control:
    fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack('16sH14x8x', b'lo', IFF_UP))
os.execvp(sys.argv[1], sys.argv[1:])
