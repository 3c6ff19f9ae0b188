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

"""Settings of malloc and of the transport: made where the user has made none."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from pruned_perception.nodes import malloc, transport


@pytest.mark.parametrize(
    ('environment', 'variable'),
    [
        ({}, ''),
        ({'LD_PRELOAD': '/usr/lib/libasan.so'}, ''),
        ({'GLIBC_TUNABLES': 'glibc.cpu.x86_ibt=on'}, ''),
        ({'PRUNED_PERCEPTION_MALLOC': 'system'}, 'PRUNED_PERCEPTION_MALLOC'),
        ({'MALLOC_MMAP_THRESHOLD_': '65536'}, 'MALLOC_MMAP_THRESHOLD_'),
        ({'MALLOC_TRIM_THRESHOLD_': '65536'}, 'MALLOC_TRIM_THRESHOLD_'),
        ({'GLIBC_TUNABLES': 'glibc.malloc.trim_threshold=1'}, 'GLIBC_TUNABLES'),
        ({'LD_PRELOAD': '/usr/lib/libjemalloc.so.2'}, 'LD_PRELOAD'),
    ],
)
def test_malloc_settings_of_the_user_are_honoured(
    environment: dict[str, str], variable: str
) -> None:
    assert malloc.user_settings(environment) == variable
    if variable:
        assert not malloc.keep_large_buffers(environment)


@pytest.mark.parametrize(
    'environment',
    [
        {'PRUNED_PERCEPTION_TRANSPORT': 'system'},
        {'FASTDDS_DEFAULT_PROFILES_FILE': '/mine.xml'},
        {'FASTRTPS_DEFAULT_PROFILES_FILE': '/mine.xml'},
        {'FASTDDS_BUILTIN_TRANSPORTS': 'UDPv4'},
        {'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'},
    ],
)
def test_transports_of_the_user_are_honoured(environment: dict[str, str]) -> None:
    assert transport.environment(environment) == {}


def test_without_settings_the_shipped_profile_is_used() -> None:
    path = str(transport.profile())
    assert transport.environment({}) == {'FASTDDS_DEFAULT_PROFILES_FILE': path}
    assert transport.environment({'RMW_IMPLEMENTATION': 'rmw_fastrtps_cpp'}) != {}
    assert transport.environment({'ROS_DISTRO': 'jazzy'}) == {
        'FASTRTPS_DEFAULT_PROFILES_FILE': path
    }


def test_a_process_that_is_no_camera_takes_the_small_profile_where_ours_is_set() -> None:
    given = transport.environment({})
    [(variable, path)] = given.items()
    small = transport.without_camera(given)
    assert small == {variable: str(Path(path).with_name('fastdds_small.xml'))}
    assert transport.without_camera(small) == {}
    assert transport.without_camera({variable: '/mine/fastdds.xml'}) == {}
    assert transport.without_camera({}) == {}


def test_the_small_profile_differs_in_its_sizes_alone() -> None:
    def words(path: Path, segment: int, message: int) -> str:
        text = ElementTree.canonicalize(path.read_text(), strip_text=True)
        for name, size in (('segment_size', segment), ('maxMessageSize', message)):
            assert text.count(f'<{name}>{size}<') == 1
            text = text.replace(f'<{name}>{size}<', f'<{name}><')
        return text

    large = transport.profile()
    assert large is not None
    small = large.with_name(transport.SMALL)
    assert words(small, 4 << 20, 1 << 20) == words(large, 24 << 20, 16 << 20)


def test_the_start_of_a_node_loads_neither_engine_nor_decoders() -> None:
    """It joins the robot's network first, and finds its camera while they load."""
    code = (
        'import sys, pruned_perception.nodes.image_node, pruned_perception.nodes.perception_node; '
        'print([each for each in ("cv2", "onnxruntime", "subprocess") if each in sys.modules])'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def test_the_profile_carries_images_through_shared_memory_and_keeps_udp() -> None:
    path = transport.profile()
    assert path == Path(str(path))
    names = {'p': 'http://www.eprosima.com'}
    root = ElementTree.parse(path).getroot()
    transports = {
        element.findtext('p:type', namespaces=names): element
        for element in root.iterfind('.//p:transport_descriptor', names)
    }
    assert set(transports) == {'SHM', 'UDPv4'}
    largest = int(transports['SHM'].findtext('p:maxMessageSize', '0', names))
    assert largest > 1920 * 1080 * 3
    segment = int(transports['SHM'].findtext('p:segment_size', '0', names))
    assert segment >= largest
    assert segment >= 3 * 1920 * 1080 * 3
    participant = root.find('.//p:participant', names)
    assert participant is not None
    assert participant.get('is_default_profile') == 'true'
    used = [e.text for e in participant.iterfind('.//p:userTransports/p:transport_id', names)]
    assert sorted(used) == sorted(
        e.findtext('p:transport_id', namespaces=names) for e in transports.values()
    )
    assert participant.findtext('.//p:useBuiltinTransports', namespaces=names) == 'false'
