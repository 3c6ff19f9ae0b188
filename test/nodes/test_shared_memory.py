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

"""Whether another process's shared memory is in our /dev/shm, as far as it is seen from here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pruned_perception.nodes import shared_memory


def gid(host: bytes = b'\x78\xfd', pid: int = 20269, vendor: bytes = b'\x01\x0f') -> bytes:
    return vendor + host + (pid & 0xFFFF).to_bytes(2, 'little') + b'\x46\xe7' + bytes(8)


@pytest.mark.parametrize(
    ('other', 'expected'),
    [
        (gid(pid=1), True),
        (gid(host=b'\x78\xfe'), False),
        (gid(vendor=b'\x01\x10'), False),  # another middleware
        (b'', False),
    ],
)
def test_hosts_are_told_apart(other: bytes, expected: bool) -> None:
    assert shared_memory.on_this_host(other, gid()) is expected


def test_middlewares_without_such_identifiers_are_left_alone() -> None:
    assert not shared_memory.on_this_host(b'', b'')
    assert not shared_memory.on_this_host(gid(vendor=b'\x01\x10'), gid(vendor=b'\x01\x10'))


def test_a_process_that_is_seen_tells_by_its_dev_shm(tmp_path: Path) -> None:
    for name in ('self', '20269', '85805', 'net'):  # two processes that end in the same 16 bits
        (tmp_path / name).mkdir()
    assert shared_memory.has_other_shared_memory(gid(), tmp_path) is None
    elsewhere = Path('/proc')  # any other file system
    assert os.stat(elsewhere).st_dev != os.stat(tmp_path).st_dev  # noqa: PTH116
    (tmp_path / 'self/root/dev/shm').mkdir(parents=True)
    (tmp_path / '20269/root/dev').mkdir(parents=True)
    (tmp_path / '20269/root/dev/shm').symlink_to(elsewhere)
    assert shared_memory.has_other_shared_memory(gid(), tmp_path) is True
    (tmp_path / '85805/root/dev/shm').mkdir(parents=True)
    assert shared_memory.has_other_shared_memory(gid(), tmp_path) is False


def test_our_own_process_has_our_shared_memory() -> None:
    if not Path('/dev/shm').is_dir():
        pytest.skip('no /dev/shm')
    assert shared_memory.has_other_shared_memory(gid(pid=os.getpid())) is False
