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

"""What the middleware does not see to in shared memory: another /dev/shm, ports of the dead."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


DOMAIN, FIRST = 3, 7400 + 3 * 250


def port(folder: Path, number: int, *, lock: bool = False, seconds: int = 0) -> Path:
    """Write a port's file; and one of its lock, which nobody holds."""
    file = folder / f'fastdds_port{number}'
    file.write_bytes(bytes(64))
    os.utime(file, (10**9 + seconds, 10**9 + seconds))
    if lock:
        file.with_name(f'{file.name}_el').touch()
    return file


@contextlib.contextmanager
def read_by_somebody(port: Path) -> Iterator[None]:
    """Hold a port's lock, as its reader does."""
    with port.with_name(f'{port.name}_el').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_locked(file: Path) -> bool:
    with file.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def test_ports_without_a_reader_are_locked_meanwhile(tmp_path: Path) -> None:
    killed = port(tmp_path, FIRST + 11, lock=True)  # its reader's lock is left behind
    written = port(tmp_path, FIRST + 13)  # a publisher has made it anew
    shared = port(tmp_path, 7004)
    alive = port(tmp_path, FIRST + 15)
    port(tmp_path, FIRST)  # of many readers: nobody may lock it for himself
    port(tmp_path, FIRST + 250 + 11)  # another domain
    (tmp_path / 'fastdds_0123456789abcdef').touch()
    with read_by_somebody(alive):
        before = names(tmp_path)
        with shared_memory.without_ports_of_the_dead(DOMAIN, tmp_path) as held:
            assert {each.name for each in held} == {
                f'{each.name}_el' for each in (killed, written, shared)
            }
            assert all(is_locked(each) for each in held)
        assert names(tmp_path) == before
    assert not is_locked(killed.with_name(f'{killed.name}_el'))


def test_no_more_than_the_newest_16_are_locked(tmp_path: Path) -> None:
    """The middleware tries a hundred ports, and leftovers of weeks must not take them all."""
    for k in range(100):
        port(tmp_path, FIRST + 11 + 2 * k, lock=True, seconds=k)
    with shared_memory.without_ports_of_the_dead(DOMAIN, tmp_path) as held:
        numbers = {int(re.findall(r'port(\d+)', each.name)[0]) for each in held}
    assert numbers == {FIRST + 11 + 2 * k for k in range(84, 100)}


def test_where_there_are_no_ports_nothing_is_locked(tmp_path: Path) -> None:
    with shared_memory.without_ports_of_the_dead(DOMAIN, tmp_path / 'none') as held:
        assert not held
    with shared_memory.without_ports_of_the_dead(DOMAIN, tmp_path) as held:
        assert not held


@pytest.mark.ros
def test_a_new_process_does_not_listen_where_a_killed_one_did(
    observer: Any, namespace: str, tiny_bundle: Any, tmp_path: Path
) -> None:
    """It would share the port with those who still send to the other."""
    from ros_harness import NodeProcess, image_message
    from tiny_detector import square_image

    def start() -> Any:
        return NodeProcess(
            tmp_path / 'log', 'perception_node', namespace, {'model': tiny_bundle.path}
        )

    def read_by(process: Any) -> set[str]:
        """Return the ports whose locks the process has."""
        files = [os.readlink(each) for each in Path(f'/proc/{process.pid}/fd').iterdir()]  # noqa: PTH115
        return {Path(each).name for each in files if re.search(r'_port\d+_el$', each)}

    first = start()
    try:
        camera = observer.camera()
        red = square_image('red', 80, 40, 120)
        observer.detect(camera, image_message(red))
        ports = read_by(first.process)
        if not ports:
            pytest.skip('this middleware has no such ports')
    finally:
        first.kill()
    second = start()
    try:
        observer.detect(camera, image_message(red))
        assert read_by(second.process)
        assert not ports & read_by(second.process)
    finally:
        second.kill()
