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

"""Headers say what decoding would show, for next to nothing."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruned_perception.datasets.boxes import as_stored
from pruned_perception.images import Header, ImageError, decode_image, read_header

SIZE = (48, 80)


def encoded(suffix: str, orientation: int | None = None) -> bytes:
    image = np.zeros((*SIZE, 3), np.uint8)
    image[10:20, 50:70] = 255
    data = cv2.imencode(suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    if orientation is None:
        return data
    tiff = b'MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0' + bytes([orientation]) + bytes(6)
    if suffix == '.jpg':
        segment = b'Exif\0\0' + tiff
        return data[:2] + b'\xff\xe1' + (len(segment) + 2).to_bytes(2, 'big') + segment + data[2:]
    check = zlib.crc32(b'eXIf' + tiff).to_bytes(4, 'big')
    return data[:33] + len(tiff).to_bytes(4, 'big') + b'eXIf' + tiff + check + data[33:]


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('orientation', [None, *range(1, 9)])
def test_size_and_orientation(suffix: str, orientation: int | None, tmp_path: Path) -> None:
    data = encoded(suffix, orientation)
    found = read_header(data)
    assert found == Header(*SIZE, orientation or 1)
    assert decode_image(data).shape[:2] == SIZE
    (tmp_path / f'x{suffix}').write_bytes(data)
    assert read_header(tmp_path / f'x{suffix}') == found


@pytest.mark.parametrize('orientation', range(1, 9))
def test_boxes_of_the_picture_that_viewers_show_are_turned_to_the_stored_one(
    orientation: int,
) -> None:
    data = encoded('.jpg', orientation)
    upright = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)  # turns as EXIF says
    assert upright.shape[:2] == read_header(data).upright
    rows, columns = np.where(upright[..., 0] > 128)
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    assert as_stored(box, orientation, SIZE).tolist() == [[50, 10, 70, 20]]


@pytest.mark.parametrize('suffix', ['.bmp', '.webp', '.tiff'])
def test_other_kinds_are_named(suffix: str) -> None:
    with pytest.raises(ImageError, match=r'a (BMP|WebP|TIFF) file; only JPEG and PNG are read'):
        read_header(encoded(suffix))


@given(st.data())
def test_any_bytes_give_a_header_or_an_error(data: st.DataObject) -> None:
    whole = bytearray(encoded(data.draw(st.sampled_from(['.jpg', '.png'])), 6))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(2, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        found = read_header(cut)
    except ImageError:
        return
    assert found.height > 0 and found.width > 0 and 1 <= found.orientation <= 8
