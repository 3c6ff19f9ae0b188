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

"""JPEG and PNG from strangers: whole ones come out as they are stored, the rest costs nothing."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import cv2
import hostile_images as hostile
import numpy as np
import pytest
from hostile_images import MUTATIONS, bombs, encoded, mutated, picture, segment
from hypothesis import given, settings
from hypothesis import strategies as st

from pruned_perception.images import decoding as image_decoding
from pruned_perception.images.checks import checked
from pruned_perception.images.decoding import decode_image, read_image
from pruned_perception.images.errors import ImageError
from pruned_perception.inference.encodings import image_from_compressed

STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
# Longer runs: PRUNED_PERCEPTION_FUZZ=20 multiplies the numbers of examples.
FUZZ = int(os.environ.get('PRUNED_PERCEPTION_FUZZ', '1'))
PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
RESTARTS = (cv2.IMWRITE_JPEG_RST_INTERVAL, 3)
WHOLE = {
    'JPEG': encoded('.jpg', picture()),
    'JPEG, gray': encoded('.jpg', picture()[..., 0]),
    'JPEG, odd size': encoded('.jpg', picture(37, 51)),
    'JPEG, progressive': encoded('.jpg', picture(), *PROGRESSIVE),
    'JPEG, restarts': encoded('.jpg', picture(), *RESTARTS),
    'JPEG, own tables': encoded('.jpg', picture(), cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    'PNG': encoded('.png', picture()),
    'PNG, gray': encoded('.png', picture()[..., 0]),
    'PNG, alpha': encoded('.png', np.dstack([picture(), picture()[..., 0]])),
    'PNG, one bit': encoded('.png', picture()[..., 0] // 128 * 255, cv2.IMWRITE_PNG_BILEVEL, 1),
}


def plain(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), STORED)


def refused(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        decode_image(data)


@pytest.mark.parametrize('name', WHOLE)
def test_whole_images_are_decoded_as_opencv_does(name):
    np.testing.assert_array_equal(decode_image(WHOLE[name]), plain(WHOLE[name]))
    gray = cv2.imdecode(np.frombuffer(WHOLE[name], np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(decode_image(WHOLE[name], gray=True), gray)


@pytest.mark.shared_data
def test_no_real_image_is_refused(shared_data):
    files = sorted(file for file in shared_data.rglob('*') if file.suffix in ('.jpg', '.png'))
    assert files
    for file in files[:: max(1, len(files) // 100)]:
        np.testing.assert_array_equal(read_image(file), plain(file.read_bytes()))


# --- Before it costs anything --------------------------------------------------------------------


@pytest.mark.parametrize('name', bombs())
def test_bombs_are_refused(name, monkeypatch):
    def never(*_):
        raise AssertionError('OpenCV was asked')

    image_decoding._warnings_arrive()
    monkeypatch.setattr(cv2, 'imdecode', never)
    refused(bombs()[name], '.')


def test_bombs_take_no_memory():
    script = (
        'import resource, hostile_images as h\n'
        'from pruned_perception.images.decoding import decode_image\n'
        'from pruned_perception.images.errors import ImageError\n'
        'decode_image(h.encoded(".jpg", h.picture()))\n'
        'bombs = h.bombs()\n'
        'peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
        'before = peak()\n'
        'for data in bombs.values():\n'
        '    try:\n'
        '        decode_image(data)\n'
        '    except ImageError:\n'
        '        pass\n'
        'print(peak() - before)\n'
    )
    folders = [str(Path(hostile.__file__).parent), *sys.path]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(folders)}
    result = subprocess.run(
        [sys.executable, '-c', script], env=environment, capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 8 << 10  # KiB


@pytest.mark.parametrize(
    ('data', 'limit'),
    [
        (lambda: hostile.gray_jpeg(1000, 1000), 1_000_000),
        (lambda: hostile.many_scans(1000, 1000, 4), 2_000_000),
        (lambda: hostile.black_png(1000, 1000), 2_000_000),
    ],
)
def test_the_limit_is_kept_to_the_pixel(data, limit):
    assert decode_image(data(), max_pixels=limit).shape == (1000, 1000, 3)
    with pytest.raises(ImageError, match=r'1000 × 1000 pixels: more than .* raise the limit'):
        decode_image(data(), max_pixels=limit - 2)


@pytest.mark.parametrize('pad', [b'\xff\x01', b'\xff' * 5, segment(0xFE, b'x' * 65533) * 3])
def test_what_evades_a_header_reader_changes_nothing(pad):
    data = WHOLE['JPEG']
    np.testing.assert_array_equal(decode_image(hostile.after_start(data, pad)), plain(data))


@pytest.mark.parametrize(
    ('marker', 'words'),
    [
        (0xC3, 'lossless'),
        (0xC5, 'hierarchical'),
        (0xC9, 'arithmetic'),
        (0xCA, 'arithmetic'),
        (0xCF, 'arithmetic'),
    ],
)
def test_other_kinds_of_jpeg_are_named(marker, words):
    parts = [(marker if m == 0xC0 else m, c, e) for m, c, e in hostile.segments(WHOLE['JPEG'])]
    refused(hostile.assembled(parts), words)


def test_a_jpeg_of_12_bits_is_named():
    parts = [
        (0xC1, b'\x0c' + c[1:], e) if m == 0xC0 else (m, c, e)
        for m, c, e in hostile.segments(WHOLE['JPEG'])
    ]
    refused(hostile.assembled(parts), 'JPEG of 12 bits a channel: a depth image')


@pytest.mark.parametrize('shape', [(48, 64), (48, 64, 3)])
def test_a_png_of_16_bits_is_named(shape):
    refused(encoded('.png', np.full(shape, 3000, np.uint16)), 'PNG of 16 bits a channel: a depth')


@pytest.mark.parametrize(
    'format', ['16UC1; png compressed', '16UC1', '32FC1; compressedDepth png', 'mono16; png']
)
def test_depth_is_refused_by_its_format_whatever_the_bytes(format):
    for data in (WHOLE['PNG'], WHOLE['JPEG'], encoded('.png', np.zeros((9, 9), np.uint16))):
        with pytest.raises(ImageError, match='a depth image'):
            image_from_compressed(data, format)


@pytest.mark.parametrize('format', ['rgb16; jpeg compressed bgr8', 'mono16; jpeg compressed mono8'])
def test_jpeg_of_a_deeper_camera_has_8_bits_and_is_taken(format):
    assert image_from_compressed(WHOLE['JPEG'], format)[0].shape == (48, 64, 3)


@pytest.mark.parametrize('suffix', ['.bmp', '.webp', '.tiff', '.pgm', '.jp2', '.gif'])
def test_formats_beside_jpeg_and_png_are_named(suffix):
    try:
        data = encoded(suffix, picture()[..., :1] if suffix == '.pgm' else picture())
    except cv2.error:
        pytest.skip(f'this OpenCV writes no {suffix}')
    refused(data, r'a \S+.* file; only JPEG and PNG are read')


# --- Whole, or refused ---------------------------------------------------------------------------

JPEGS = [name for name in WHOLE if name.startswith('JPEG')]


@pytest.mark.parametrize('name', WHOLE)
def test_a_truncated_image_is_refused(name):
    data = WHOLE[name]
    for size in {*range(1, len(data) - 1, max(1, len(data) // 60)), len(data) - 1, len(data) - 2}:
        refused(data[:size], '.')


@pytest.mark.parametrize('name', JPEGS)
def test_a_truncated_jpeg_with_an_end_marker_is_refused(name):
    data = WHOLE[name]
    start = data.index(b'\xff\xda') + 20
    for size in range(start, len(data) - 3, max(1, len(data) // 60)):
        cut = data[:size].rstrip(b'\xff')
        with pytest.raises(ImageError):
            decode_image(cut + b'\xff\xd9')


def test_the_frame_before_never_shows():
    """A decoder that leaves rows unwritten returns what the memory held: a former image."""
    data = encoded('.jpg', picture(480, 640))
    for _ in range(5):
        decode_image(encoded('.jpg', np.full((480, 640, 3), (0, 0, 255), np.uint8)))
        refused(data[: len(data) // 2], 'cut off')
        refused(data[: len(data) // 2] + b'\xff\xd9', 'premature end')


def test_lost_packets_are_refused():
    """1,400 bytes, a packet's content, or more are missing somewhere in the data."""
    data = encoded('.jpg', picture(480, 640), cv2.IMWRITE_JPEG_QUALITY, 90)
    start = data.index(b'\xff\xda') + 20
    generator = np.random.default_rng(3)
    for _ in range(40 * FUZZ):
        size = int(generator.integers(1400, 20_000))
        at = int(generator.integers(start, len(data) - 2 - size))
        refused(data[:at] + data[at + size :], 'damaged JPEG')


def test_a_progressive_jpeg_without_its_last_scans_is_refused():
    parts = list(hostile.segments(WHOLE['JPEG, progressive']))
    scans = [index for index, part in enumerate(parts) if part[0] == 0xDA]
    assert len(scans) > 3
    for scan in scans:
        refused(hostile.assembled(parts[:scan]), 'some of its scans are missing')


def test_restart_markers_are_counted():
    data = WHOLE['JPEG, restarts']
    markers = [data.index(b'\xff' + bytes((0xD0 + n,))) for n in range(3)]
    refused(data[: markers[0]] + data[markers[1] :], 'restart markers')
    refused(data[: markers[0]] + data[markers[0] + 2 :], 'restart markers')
    swapped = bytearray(data)
    swapped[markers[0] + 1], swapped[markers[1] + 1] = 0xD1, 0xD0
    refused(bytes(swapped), 'in the wrong order')


def test_a_warning_that_would_be_the_second_is_not_lost():
    """The library tells the first warning only; metadata must not use it up."""
    data = WHOLE['JPEG']
    head = segment(0xE0, b'JFIF\0\x09\x09\0\0\x01\0\x01\0\0') + segment(
        0xEE, b'Adobe' + bytes(6) + b'\x09'
    )
    start = data.index(b'\xff\xda') + 20
    cut = data[: (start + len(data)) // 2].rstrip(b'\xff') + b'\xff\xd9'
    refused(hostile.after_start(cut, head), 'premature end')


@pytest.mark.parametrize(
    ('idat', 'words'),
    [
        (zlib.compress(bytes(48 * 193 - 1)), 'end early'),
        (zlib.compress(bytes(48 * 193))[:-4], 'end early'),
        (zlib.compress(bytes(48 * 193 + 1)), 'more data than pixels'),
        (zlib.compress(bytes(48 * 193))[:-1] + b'?', 'incorrect data check'),
        (b'', 'end early'),
        (zlib.compress(b'\x09' * 48 * 193), 'adaptive filter|does not decode'),
    ],
)
def test_a_png_with_other_data_than_it_announces_is_refused(idat, words):
    refused(hostile.png(48, 64, idat), words)


def test_every_changed_byte_of_a_png_is_seen():
    data = WHOLE['PNG']
    whole = plain(data)
    for at in range(0, len(data), max(1, len(data) // (300 * FUZZ))):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        try:
            image = decode_image(changed)
        except ImageError:
            continue
        np.testing.assert_array_equal(image, whole)


mutations = st.lists(
    st.tuples(
        st.sampled_from(MUTATIONS), st.floats(0, 1), st.integers(1, 400), st.integers(1, 255)
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=100 * FUZZ)
@given(st.sampled_from([name for name in WHOLE if name.startswith('PNG')]), mutations)
def test_a_mutated_png_is_the_same_picture_or_refused(name, changes):
    data = mutated(WHOLE[name], changes)
    try:
        image = decode_image(data)
    except ImageError:
        return
    np.testing.assert_array_equal(image, plain(WHOLE[name]))


@settings(max_examples=300 * FUZZ)
@given(st.sampled_from(JPEGS), mutations)
def test_a_mutated_jpeg_is_a_picture_of_its_size_or_refused(name, changes):
    data = mutated(WHOLE[name], changes)
    try:
        image = decode_image(data, max_pixels=1_000_000)
    except ImageError:
        return
    form = checked(data, 1_000_000)
    assert image.shape == (form.height, form.width, 3)
    # Decoded again, with other memory in between, it is the same: nothing comes from elsewhere.
    np.full(image.size, 0xAB, np.uint8).sum()
    np.testing.assert_array_equal(decode_image(data, max_pixels=1_000_000), image)


# --- As it is stored -----------------------------------------------------------------------------


@pytest.mark.parametrize('orientation', range(1, 9))
def test_an_orientation_turns_nothing(orientation, tmp_path):
    jpeg = hostile.after_start(WHOLE['JPEG'], hostile.exif(orientation))
    tiff = hostile.exif(orientation)[10:]
    png = hostile.with_chunk(WHOLE['PNG'], b'eXIf', tiff)
    for name, data in (('a.jpg', jpeg), ('a.png', png)):
        stored = plain(WHOLE['JPEG' if name == 'a.jpg' else 'PNG'])
        np.testing.assert_array_equal(image_from_compressed(data, 'jpeg')[0], stored)
        (tmp_path / name).write_bytes(data)
        np.testing.assert_array_equal(read_image(tmp_path / name), stored)


def test_metadata_of_a_png_reaches_no_decoder():
    colours = hostile.with_chunk(WHOLE['PNG'], b'gAMA', struct.pack('>I', 1))
    bomb = b'profile\0\0' + zlib.compress(bytes(20_000_000))
    for data in (colours, hostile.with_chunk(WHOLE['PNG'], b'iCCP', bomb)):
        assert b''.join(checked(data).parts) == b''.join(checked(WHOLE['PNG']).parts)


# --- Standard error ------------------------------------------------------------------------------


def test_what_others_write_meanwhile_is_passed_on(capfd):
    decode = cv2.imdecode
    with pytest.MonkeyPatch.context() as patch:

        def with_a_neighbour(*args):
            os.write(2, b'a neighbour speaks\n')
            return decode(*args)

        patch.setattr(cv2, 'imdecode', with_a_neighbour)
        decode_image(WHOLE['JPEG'])
        cut = WHOLE['JPEG'][:-200].rstrip(b'\xff') + b'\xff\xd9'
        refused(cut, 'premature end')
    os.write(2, b'and again\n')
    assert capfd.readouterr().err == 'a neighbour speaks\n' * 2 + 'and again\n'


def test_threads_do_not_see_each_others_damage():
    cut = WHOLE['JPEG'][:-200].rstrip(b'\xff') + b'\xff\xd9'
    wrong = []

    def work(data, whole):
        for _ in range(100):
            try:
                decode_image(data)
            except ImageError:
                if whole:
                    wrong.append('whole refused')
            else:
                if not whole:
                    wrong.append('damaged taken')

    threads = [threading.Thread(target=work, args=a) for a in ((WHOLE['JPEG'], True), (cut, False))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_standard_error_hides_nothing():
    script = (
        'import os, sys, hostile_images as h\n'
        'from pruned_perception.images.decoding import decode_image\n'
        'from pruned_perception.images.errors import ImageError\n'
        'os.close(2)\n'
        'data = h.encoded(".jpg", h.picture())\n'
        'decode_image(data)\n'
        'try:\n'
        '    decode_image(data[:-200].rstrip(b"\\xff") + b"\\xff\\xd9")\n'
        'except ImageError as error:\n'
        '    print(error)\n'
        'try:\n'
        '    os.fstat(2)\n'
        'except OSError:\n'
        '    print("closed")\n'
    )
    folders = [str(Path(hostile.__file__).parent), *sys.path]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(folders)}
    result = subprocess.run(
        [sys.executable, '-c', script], env=environment, capture_output=True, text=True, check=True
    )
    assert 'premature end' in result.stdout
    assert result.stdout.endswith('closed\n')


def test_descriptors_do_not_grow():
    decode_image(WHOLE['JPEG'])
    before = len(list(Path('/proc/self/fd').iterdir()))
    for _ in range(50):
        decode_image(WHOLE['JPEG'])
        refused(WHOLE['JPEG'][:-200].rstrip(b'\xff') + b'\xff\xd9', '.')
    assert len(list(Path('/proc/self/fd').iterdir())) == before


def test_an_opencv_that_does_not_tell_is_not_trusted(monkeypatch):
    monkeypatch.setattr(image_decoding, '_warnings_arrive', lambda: False)
    refused(WHOLE['JPEG'], 'does not report damaged JPEG data')
    assert decode_image(WHOLE['PNG']).shape == (48, 64, 3)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_bad_images_leave_no_line_on_standard_error(suffix, capfd):
    """libjpeg, libpng and OpenCV write there; a camera may send thirty a second."""
    data = encoded(suffix, picture())
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(data)
        start = random.integers(len(damaged))
        match random.integers(4):
            case 0:
                del damaged[start:]
            case 1:
                damaged[start] ^= 1 << random.integers(8)
            case 2:
                del damaged[start : start + random.integers(1, 200)]
            case 3:
                damaged[start:] = b'\xff\xd9'
        try:
            decode_image(bytes(damaged))
        except ImageError:
            refused += 1
    assert refused > 100
    assert not capfd.readouterr().err
