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

"""What Fast DDS does not see to in shared memory: another /dev/shm, and ports that are lost.

To a participant of the same host it sends by shared memory alone, also where the two have a
/dev/shm of their own each, as containers do: they are discovered, by UDP, and nothing else ever
arrives. Seen from here: an identifier of our own host, a node without a name (names travel like
images), and, where we may look at the process, another file system on its /dev/shm.

A participant listens on ports, each a file that others write to and beside it one that it keeps
locked. Where a process was killed and is started again, on a busy machine, its port is now and then
removed by one of those who wrote to the former's (Fast DDS 3.2; of 2.14: its issue 5469). From then
on the process listens to memory that nobody else has, and hears nothing, for as long as it lives.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

FAST_DDS = b'\x01\x0f'
"""Vendor id, at the start of a participant's GUID; then two bytes of host, two of the process."""

UNKNOWN_NODE = '_NODE_NAME_UNKNOWN_'
"""How rmw calls the node of an endpoint before it is told its name."""

_PID_BITS = 0xFFFF
_PORT = re.compile(r'/fast(?:dds|rtps)_port(\d+)( \(deleted\))?$', re.MULTILINE)
_LOCK = re.compile(r'/fast(?:dds|rtps)_port(\d+)_el( \(deleted\))?$')
_FIRST_PORT = 7400  # below are those of endpoints that ask for one of their own; ours do not


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


def lost_port(process: Path = Path('/proc/self')) -> int | None:
    """Return a port that the process listens on for topics, though its file is gone; mostly None.

    None, too, where there is no such middleware or no /proc.
    """
    locked: set[int] = set()
    try:
        for descriptor in (process / 'fd').iterdir():
            with contextlib.suppress(OSError):  # closed since
                locked |= {int(found[1]) for found in _LOCK.finditer(os.readlink(descriptor))}  # noqa: PTH115
        maps = (process / 'maps').read_text(errors='replace')
    except OSError:
        return None
    mapped = [(int(found[1]), bool(found[2])) for found in _PORT.finditer(maps)]
    gone = {port for port, is_gone in mapped if is_gone}
    there = {port for port, is_gone in mapped if not is_gone}
    return min((each for each in locked & gone - there if each >= _FIRST_PORT), default=None)


def _device(process: Path) -> int | None:
    try:
        return os.stat(process / 'root/dev/shm').st_dev  # noqa: PTH116
    except OSError:  # it ended, or is another user's
        return None
