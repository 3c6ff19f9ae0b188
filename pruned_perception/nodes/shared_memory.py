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

"""What Fast DDS does not see to in shared memory: another /dev/shm, and the ports of the dead.

To a participant of the same host it sends by shared memory alone, also where the two have a
/dev/shm of their own each, as containers do: they are discovered, by UDP, and nothing else ever
arrives. Seen from here: an identifier of our own host, a node without a name (names travel like
images), and, where we may look at the process, another file system on its /dev/shm.

A port is a file that publishers write to, and beside it a file that its reader holds locked. To the
port of a reader that was killed they go on writing until its lease ends, for 20 s. A process that
is started meanwhile takes that port over, and on a busy machine this is a race (Fast DDS 3.2; of
2.14: its issue 5469): now and then a publisher removes the port as that of a dead reader, and the
new one listens, for as long as it lives, to memory that nobody else has.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

FAST_DDS = b'\x01\x0f'
"""Vendor id, at the start of a participant's GUID; then two bytes of host, two of the process."""

UNKNOWN_NODE = '_NODE_NAME_UNKNOWN_'
"""How rmw calls the node of an endpoint before it is told its name."""

SHARED_MEMORY = Path('/dev/shm')

_PID_BITS = 0xFFFF
_PORT = re.compile(r'fast(?:dds|rtps)_port(\d+)')
_MOST_PORTS = 16  # the middleware tries 100 before it gives up


def on_this_host(gid: Sequence[int], own: Sequence[int]) -> bool:
    """Tell whether two endpoints of Fast DDS are, to it, on one host."""
    return bytes(gid[:2]) == FAST_DDS and bytes(gid[:4]) == bytes(own[:4])


def has_other_shared_memory(gid: Sequence[int], proc: Path = Path('/proc')) -> bool | None:
    """Tell whether the process of an endpoint has another /dev/shm than we.

    None where no process is visible that could be it: it is in another container, or not ours to
    look at.
    """
    low = int.from_bytes(bytes(gid[4:6]), 'little')
    own = _device(proc / 'self')
    found = {
        _device(each)
        for each in proc.iterdir()
        if each.name.isdecimal() and int(each.name) & _PID_BITS == low
    } - {None}
    if own is None or not found:
        return None
    return own not in found


@contextlib.contextmanager
def without_ports_of_the_dead(
    domain: int, folder: Path = SHARED_MEMORY
) -> Iterator[Sequence[Path]]:
    """Keep a participant that is created meanwhile from ports that are there, but have no reader.

    To the middleware a locked port is somebody else's, and it takes the next. What is locked, and
    given, are the 16 newest such ports of the ROS domain and of those that all domains share;
    afterwards they are as they were.
    """
    held: list[Path] = []
    with contextlib.ExitStack() as stack:
        for port in _ports(domain, folder):
            lock = port.with_name(f'{port.name}_el')
            if len(held) < _MOST_PORTS and _locked(lock, stack):
                held.append(lock)
        yield held


def _ports(domain: int, folder: Path) -> list[Path]:
    """Return the ports of single readers, the newest first."""
    first = 7400 + 250 * domain  # there, and beside it, are those of many readers (multicast)
    found = []
    for each in folder.iterdir() if folder.is_dir() else ():
        number = int(match[1]) if (match := _PORT.fullmatch(each.name)) else 0
        if 0 < number < 7400 or first + 10 <= number < first + 250:
            with contextlib.suppress(FileNotFoundError):  # it was removed since
                found.append((each.stat().st_mtime_ns, each))
    return [each for _, each in sorted(found, reverse=True)]


def _locked(lock: Path, stack: contextlib.ExitStack) -> bool:
    """Lock a file until `stack` ends, and tell whether that could be done: nobody has it."""
    is_new = not lock.exists()
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CREAT, 0o666)
    except OSError:  # another user's
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    stack.callback(os.close, descriptor)
    if is_new:
        stack.callback(lock.unlink, missing_ok=True)  # before it is closed
    return True


def _device(process: Path) -> int | None:
    try:
        return os.stat(process / 'root/dev/shm').st_dev  # noqa: PTH116
    except OSError:  # it ended, or is another user's
        return None
