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

"""Message bytes → image, for every encoding, with and without padded rows."""

from __future__ import annotations

import array
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruned_perception.inference.encodings import (
    ENCODINGS,
    MAX_PIXELS,
    image_from_buffer,
    image_from_compressed,
)
from pruned_perception.inference.errors import ImageError

sizes = st.tuples(st.integers(1, 20), st.integers(1, 20)).map(lambda s: (2 * s[0], 2 * s[1]))
paddings = st.integers(0, 9)
seeds = st.integers(0, 2**32 - 1)
CHANNELS = {'rgb8': 3, 'bgr8': 3, '8UC3': 3, 'mono8': 1, '8UC1': 1}


def message_bytes(rows: np.ndarray, padding: int) -> tuple[int, bytes]:
    """Return (step, data) of `rows` (height, bytes), each followed by `padding` bytes of junk."""
    junk = np.full((len(rows), padding), 0xAB, np.uint8)
    return rows.shape[1] + padding, np.concatenate([rows, junk], axis=1).tobytes()


def to_rgb(image: np.ndarray, order: str) -> np.ndarray:
    return {
        'rgb': lambda: image,
        'bgr': lambda: image[..., ::-1],
        'gray': lambda: np.repeat(image[..., None], 3, axis=2),
    }[order]()


@given(st.sampled_from(sorted(CHANNELS)), sizes, paddings, seeds)
def test_packed_pixels_come_as_they_are_without_a_copy(encoding, size, padding, seed):
    height, width = size
    channels = CHANNELS[encoding]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    step, data = message_bytes(pixels.reshape(height, -1), padding)
    image, order = image_from_buffer(encoding, height, width, step, data)
    assert order == {'rgb8': 'rgb', 'mono8': 'gray', '8UC1': 'gray'}.get(encoding, 'bgr')
    np.testing.assert_array_equal(image.reshape(height, width, channels), pixels)
    assert np.shares_memory(image, np.frombuffer(data, np.uint8))


@given(st.sampled_from(['rgba8', 'bgra8', '8UC4']), sizes, paddings, seeds)
def test_the_fourth_channel_is_left_out(encoding, size, padding, seed):
    height, width = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    step, data = message_bytes(pixels.reshape(height, -1), padding)
    image, order = image_from_buffer(encoding, height, width, step, data)
    assert order == ('rgb' if encoding == 'rgba8' else 'bgr')
    np.testing.assert_array_equal(image, pixels[..., :3])


def yuv_of(rgb: np.ndarray) -> tuple[float, float, float]:
    """Return Y, U, V of one colour by BT.601 in studio range, as camera drivers send it."""
    red, green, blue = (float(value) for value in rgb)
    return (
        16 + 0.257 * red + 0.504 * green + 0.098 * blue,
        128 - 0.148 * red - 0.291 * green + 0.439 * blue,
        128 + 0.439 * red - 0.368 * green - 0.071 * blue,
    )


def yuv_rows(encoding: str, height: int, width: int, rgb: np.ndarray) -> np.ndarray:
    """Return the rows of bytes of an image of one colour."""
    y, u, v = np.round(yuv_of(rgb)).astype(np.uint8)
    if encoding in ('nv12', 'nv21'):
        chroma = [u, v] if encoding == 'nv12' else [v, u]
        luma = np.full((height, width), y, np.uint8)
        return np.concatenate([luma, np.tile(np.uint8(chroma), (height // 2, width // 2))])
    pair = [u, y, v, y] if encoding in ('uyvy', 'yuv422') else [y, u, y, v]
    return np.tile(np.uint8(pair), (height, width // 2))


@given(
    st.sampled_from(['uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2', 'nv12', 'nv21']),
    sizes,
    paddings,
    st.tuples(*[st.integers(0, 255)] * 3),
)
def test_yuv_gives_back_the_colour(encoding, size, padding, rgb):
    height, width = size
    step, data = message_bytes(yuv_rows(encoding, height, width, np.array(rgb)), padding)
    image, order = image_from_buffer(encoding, height, width, step, data)
    assert image.shape == (height, width, 3)
    difference = np.abs(to_rgb(image, order).astype(int) - np.array(rgb)).max()
    assert difference <= 4  # rounding of Y, U and V


@given(st.sampled_from(['rggb', 'bggr', 'gbrg', 'grbg']), sizes, paddings)
def test_bayer_patterns_are_told_apart(pattern, size, padding):
    # A scene of one colour: every photosite shows its own filter's part of it.
    height, width = size[0] + 4, size[1] + 4
    rgb = {'r': 200, 'g': 120, 'b': 40}
    tile = np.array([[rgb[pattern[0]], rgb[pattern[1]]], [rgb[pattern[2]], rgb[pattern[3]]]])
    mosaic = np.tile(tile, (height // 2, width // 2)).astype(np.uint8)
    step, data = message_bytes(mosaic, padding)
    image, order = image_from_buffer(f'bayer_{pattern}8', height, width, step, data)
    inner = to_rgb(image, order)[2:-2, 2:-2]
    np.testing.assert_array_equal(inner, np.broadcast_to([200, 120, 40], inner.shape))


def bytes_needed(encoding: str, height: int, width: int) -> tuple[int, int]:
    """Return (step, size of data) without padding."""
    if encoding in ('nv12', 'nv21'):
        return width, height * width * 3 // 2
    pixel = {'rgb8': 3, 'bgr8': 3, '8UC3': 3, 'rgba8': 4, 'bgra8': 4, '8UC4': 4}.get(encoding)
    pixel = pixel or (2 if 'yuv' in encoding or 'yuyv' in encoding or 'uyvy' in encoding else 1)
    return pixel * width, pixel * width * height


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_every_encoding_gives_an_image_of_its_size(encoding):
    step, size = bytes_needed(encoding, 6, 8)
    image, order = image_from_buffer(encoding, 6, 8, step, bytes(size))
    assert image.shape == ((6, 8) if order == 'gray' else (6, 8, 3))
    assert image.dtype == np.uint8


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('change', [-1, 1, -8])
def test_data_of_another_size_is_refused(encoding, change):
    step, size = bytes_needed(encoding, 6, 8)
    with pytest.raises(ImageError, match=f'encoding {encoding}: {size + change} bytes of data'):
        image_from_buffer(encoding, 6, 8, step, bytes(size + change))


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_a_step_too_short_is_refused(encoding):
    step, size = bytes_needed(encoding, 6, 8)
    with pytest.raises(ImageError, match=f'encoding {encoding}: step is {step - 1} bytes'):
        image_from_buffer(encoding, 6, 8, step - 1, bytes(size))


@pytest.mark.parametrize('encoding', ['16UC1', '32FC1', 'rgb16', 'yuv420', '', 'RGB 8'])
def test_an_unknown_encoding_lists_the_known_ones(encoding):
    with pytest.raises(ImageError, match=r'unknown image encoding .*rgb8.*nv12.*camera driver'):
        image_from_buffer(encoding, 6, 8, 24, bytes(144))


@pytest.mark.parametrize('size', [(0, 0), (0, 8), (6, 0)])
@pytest.mark.parametrize('encoding', ['rgb8', 'nv12', 'yuyv', 'bayer_rggb8'])
def test_an_image_without_pixels_is_refused(encoding, size):
    with pytest.raises(ImageError, match='there is nothing in it'):
        image_from_buffer(encoding, *size, 0, b'')


@pytest.mark.parametrize('data', [b'', array.array('B'), np.empty(0, np.uint8)])
def test_a_message_without_data_is_refused(data):
    with pytest.raises(ImageError, match='encoding rgb8: 0 bytes of data'):
        image_from_buffer('rgb8', 6, 8, 24, data)
    with pytest.raises(ImageError, match='without data'):
        image_from_compressed(data, 'jpeg')


@pytest.mark.parametrize('kind', [bytes, bytearray, lambda data: array.array('B', data)])
def test_any_buffer_of_bytes_is_taken(kind):
    image, _ = image_from_buffer('mono8', 2, 3, 3, kind(b'abcdef'))
    assert image.tobytes() == b'abcdef'


def test_a_size_beyond_the_limit_is_refused_before_its_data_are_looked_at():
    with pytest.raises(ImageError, match=f'more than {MAX_PIXELS} pixels'):
        image_from_buffer('rgb8', 1 << 14, 1 << 14, 3 << 14, b'')


def test_108_megapixels_are_a_view_and_no_copy():
    data = np.zeros(9_000 * 12_000, np.uint8)
    image, order = image_from_buffer('mono8', 9_000, 12_000, 12_000, data)
    assert image.shape == (9_000, 12_000)
    assert order == 'gray'
    assert np.shares_memory(image, data)


@pytest.mark.parametrize('encoding', ['nv12', 'nv21', 'yuyv', 'uyvy'])
def test_odd_widths_of_shared_chroma_are_refused(encoding):
    with pytest.raises(ImageError, match='must be'):
        image_from_buffer(encoding, 6, 7, 14, bytes(84))


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_compressed_images_are_decoded(suffix):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:] = 30, 90, 200
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    image, order = image_from_compressed(data, suffix[1:])
    assert order == 'bgr'
    assert image.shape == (20, 30, 3)
    assert np.abs(image.astype(int) - pixels).max() <= 8


def test_compressed_mono8_stays_gray():
    data = cv2.imencode('.png', np.full((20, 30), 77, np.uint8))[1].tobytes()
    image, order = image_from_compressed(data, 'mono8; png compressed ')
    assert order == 'gray'
    np.testing.assert_array_equal(image, np.full((20, 30), 77))


@pytest.mark.parametrize(
    ('data', 'format', 'message'),
    [
        (b'', 'jpeg', 'without data'),
        (b'nonsense', 'jpeg', 'damaged or of a kind'),
        (b'\xff\xd8\xff\xd9', 'jpeg', 'damaged or of a kind'),
        (b'\x00' * 50, '16UC1; compressedDepth png', 'a depth image'),
    ],
)
def test_damaged_compressed_images_are_refused(data, format, message):
    with pytest.raises(ImageError, match=message):
        image_from_compressed(data, format)


def png_header(height: int, width: int) -> bytes:
    return b'\x89PNG\r\n\x1a\n' + struct.pack('>I4sII', 13, b'IHDR', width, height) + b'\x08\x02'


def jpeg_header(height: int, width: int) -> bytes:
    comment = b'\xff\xfe' + struct.pack('>H', 12) + b'0123456789'
    return b'\xff\xd8' + comment + b'\xff\xc2' + struct.pack('>HBHHB', 17, 8, height, width, 3)


@pytest.mark.parametrize('header', [png_header, jpeg_header])
@pytest.mark.parametrize(
    ('size', 'message'),
    [
        ((60_000, 60_000), '60000 × 60000 pixels: more than'),
        ((0, 0), '0 × 0 pixels: there is nothing'),
    ],
)
def test_the_announced_size_is_judged_before_memory_is_taken(header, size, message):
    with pytest.raises(ImageError, match=message):
        image_from_compressed(header(*size) + bytes(100), 'x')


@given(st.binary(max_size=200))
def test_any_bytes_give_an_image_or_an_image_error(data):
    for start in (b'', b'\xff\xd8', b'\x89PNG\r\n\x1a\n'):
        try:
            image, _ = image_from_compressed(start + data)
        except ImageError:
            continue
        assert image.size
