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
