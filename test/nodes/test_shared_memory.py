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

"""What the middleware does not see to in shared memory: another /dev/shm, ports that are lost."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from pruned_perception.nodes import shared_memory

ERROR = 2


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


def process(folder: Path, *, locks: list[str], maps: list[str]) -> Path:
    """Write what /proc says of a process: the files that it has open, and mapped."""
    (folder / 'fd').mkdir()
    for number, name in enumerate(['/dev/null', *locks]):
        (folder / 'fd' / str(number)).symlink_to(name)
    line = '7f0000000000-7f0000001000 rw-s 00000000 00:1a 12   {}\n'
    (folder / 'maps').write_text(''.join(line.format(each) for each in ['/bin/sh', *maps]))
    return folder


SHM = '/dev/shm/fastdds_port'


@pytest.mark.parametrize(
    ('maps', 'lost'),
    [
        ([f'{SHM}23413'], None),
        ([f'{SHM}23413 (deleted)'], 23413),
        ([f'{SHM}23413 (deleted)', f'{SHM}23413'], None),  # made anew
        ([f'{SHM}23413', f'{SHM}23415 (deleted)'], None),  # another's, who was killed
        ([f'{SHM}23413', f'{SHM}7004 (deleted)'], None),  # not one of topics
        ([], None),
    ],
)
def test_a_port_is_lost_where_we_listen_to_what_is_gone(
    tmp_path: Path, maps: list[str], lost: int | None
) -> None:
    locks = [f'{SHM}23413_el', f'{SHM}7004_el', '/dev/shm/fastdds_0123456789abcdef_el']
    assert shared_memory.lost_port(process(tmp_path, locks=locks, maps=maps)) == lost


def test_without_such_a_middleware_or_proc_no_port_is_lost(tmp_path: Path) -> None:
    assert shared_memory.lost_port(tmp_path) is None
    assert shared_memory.lost_port(process(tmp_path, locks=[], maps=[])) is None


@pytest.mark.ros
def test_a_node_that_lost_its_port_says_so_ends_and_comes_back(
    observer: Any, namespace: str, tiny_bundle: Any
) -> None:
    """Its file is removed, as Fast DDS does it at times."""
    from ros_harness import image_message
    from test_up import Up
    from tiny_detector import square_image

    red = image_message(square_image('red', 80, 40, 120))
    up = Up('perception', f'model:={tiny_bundle.path}', f'namespace:={namespace}', 'respawn:=true')
    try:
        camera = observer.camera()
        observer.detect(camera, red)
        port = heard_on(up.pid())
        if port is None:
            pytest.skip('this middleware has no such ports')
        port.unlink()
        status = observer.status('image_input', 'the middleware has lost the shared memory', ERROR)
        assert f'(port {port.name.removeprefix("fastdds_port")})' in status.message
        observer.wait(lambda: up.pid(2), 'another start')
        observer.detections.clear()
        assert observer.detect(camera, red).detections
        assert any('ended with exit code 1; it starts again' in line for line in up.lines)
        assert any('the middleware has lost the shared memory' in line for line in up.lines)
    finally:
        up.process.kill()
        up.process.wait()


def heard_on(pid: int) -> Path | None:
    """Return the file of the port on which a process hears topics."""
    for each in Path(f'/proc/{pid}/fd').iterdir():
        lock = os.readlink(each)  # noqa: PTH115
        if re.search(r'/fastdds_port[0-9]{4,5}_el$', lock) and '_port70' not in lock:
            return Path(lock.removesuffix('_el'))
    return None
