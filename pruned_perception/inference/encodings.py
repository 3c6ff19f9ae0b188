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

"""ROS image encodings → arrays that the detector takes, without a copy where that is possible."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.images import checks as image_format
from pruned_perception.images.checks import check_size
from pruned_perception.images.decoding import decode_image
from pruned_perception.inference.errors import ImageError

# 134 megapixels, 12,000 × 9,000 and a little more: above it a raw frame is taken for a damaged
# header. Its message holds as many bytes, so it costs little more than was paid to receive it.
MAX_PIXELS = 1 << 27

Image = NDArray[np.uint8]


def _bayer(code: int) -> tuple[int, str, int]:
    return (1, 'bgr', code)


# encoding → bytes per pixel, order of the result, OpenCV's conversion (None: as it is).
# OpenCV names Bayer patterns by the second row's second and third pixel: BG is ROS's rggb.
_PACKED: dict[str, tuple[int, str, int | None]] = {
    'rgb8': (3, 'rgb', None),
    'bgr8': (3, 'bgr', None),
    'mono8': (1, 'gray', None),
    # OpenCV's own type names say nothing about colours; drivers that use them mean its usual BGR.
    '8UC1': (1, 'gray', None),
    '8UC3': (3, 'bgr', None),
    '8UC4': (4, 'bgr', cv2.COLOR_BGRA2BGR),
    'rgba8': (4, 'rgb', cv2.COLOR_RGBA2RGB),
    'bgra8': (4, 'bgr', cv2.COLOR_BGRA2BGR),
    'uyvy': (2, 'bgr', cv2.COLOR_YUV2BGR_UYVY),
    'yuv422': (2, 'bgr', cv2.COLOR_YUV2BGR_UYVY),
    'yuyv': (2, 'bgr', cv2.COLOR_YUV2BGR_YUY2),
    'yuv422_yuy2': (2, 'bgr', cv2.COLOR_YUV2BGR_YUY2),
    'bayer_rggb8': _bayer(cv2.COLOR_BayerBG2BGR),
    'bayer_bggr8': _bayer(cv2.COLOR_BayerRG2BGR),
    'bayer_gbrg8': _bayer(cv2.COLOR_BayerGR2BGR),
    'bayer_grbg8': _bayer(cv2.COLOR_BayerGB2BGR),
}
# A plane of luma, then one of half the height with both chroma channels interleaved.
_SEMI_PLANAR = {'nv12': cv2.COLOR_YUV2BGR_NV12, 'nv21': cv2.COLOR_YUV2BGR_NV21}
ENCODINGS = (*_PACKED, *_SEMI_PLANAR)
# What a compressed image says that it was made of: a distance, in more than 8 bits or signed.
_DEPTH = re.compile(r'(16|32|64|8S)[USF]?C\d|mono16\s*;\s*png', re.I)


def image_from_message(
    message: Any, max_pixels: int = image_format.MAX_PIXELS
) -> tuple[Image, str]:
    """Return the image of a `sensor_msgs/Image` or `CompressedImage`, and its channels' order.

    `max_pixels` is of a compressed one. Raises ImageError; see `image_from_buffer` and
    `image_from_compressed`.
    """
    if not hasattr(message, 'encoding'):
        return image_from_compressed(message.data, message.format, max_pixels)
    return image_from_buffer(
        message.encoding,
        message.height,
        message.width,
        message.step,
        message.data,
        message.is_bigendian,
    )


def image_from_buffer(
    encoding: str, height: int, width: int, step: int, data: Any, is_bigendian: int = 0
) -> tuple[Image, str]:
    """Return the image of a `sensor_msgs/Image`, and the order of its channels.

    Parameters
    ----------
    encoding, height, width, step, data
        As in the message; `data` is any buffer of bytes. For nv12 and nv21 `height` counts the
        rows of luma, and `data` holds height · step · 3 / 2 bytes.
    is_bigendian
        Without meaning, as all encodings here are of 8 bits.

    Returns
    -------
    uint8 (H, W, 3) with 'rgb' or 'bgr', or (H, W) with 'gray'. For rgb8, bgr8 and mono8 it is a
    view of `data`, read-only where that is, and with padded rows where `step` is longer.

    Raises
    ------
    ImageError
        Unknown encoding, a size of 0 or beyond the limit, or `step` and `data` that do not fit.

    """
    name = encoding.strip()
    if name not in _PACKED:
        name = name.lower()
    buffer = memoryview(data).cast('B')
    if name in _SEMI_PLANAR:
        check_size(height, width, MAX_PIXELS)
        if height % 2 or width % 2:
            raise ImageError(f'encoding {name}: {width} × {height} pixels; both must be even')
        plane = _rows(name, buffer, height * 3 // 2, width, step, 1)
        return _convert(plane, _SEMI_PLANAR[name], name), 'bgr'
    if name not in _PACKED:
        raise ImageError(
            f'unknown image encoding {encoding!r}; known are {", ".join(ENCODINGS)} '
            '(let the camera driver publish one of them)'
        )
    channels, order, conversion = _PACKED[name]
    check_size(height, width, MAX_PIXELS)
    if channels == 2 and width % 2:
        raise ImageError(f'encoding {name}: a width of {width} pixels; it must be even')
    image = _rows(name, buffer, height, width, step, channels)
    return (image if conversion is None else _convert(image, conversion, name)), order


def image_from_compressed(
    data: Any, format: str = '', max_pixels: int = image_format.MAX_PIXELS
) -> tuple[Image, str]:
    """Return the image of a `sensor_msgs/CompressedImage`: (H, W, 3) 'bgr' or (H, W) 'gray'.

    `format` is the message's, e.g. 'jpeg' or 'rgb8; jpeg compressed bgr8'; gray is returned only
    where it says mono8. Raises ImageError where the data is no JPEG or PNG, damaged, too large, or
    depth; see `images.decode_image`.
    """
    kind = format.strip()
    if _DEPTH.match(kind) or 'compresseddepth' in kind.lower():
        raise ImageError(f'format {format!r}: a depth image; give a topic with colour images')
    size = memoryview(data).nbytes
    if not size:
        raise ImageError('compressed image without data')
    gray = kind.lower().startswith('mono8')
    try:
        image = decode_image(data, gray=gray, max_pixels=max_pixels)
    except ImageError as error:
        raise ImageError(
            f'compressed image (format {format!r}, {size} bytes) is damaged or of a kind that is '
            f'not read: {error}'
        ) from None
    return image, 'gray' if gray else 'bgr'


def _rows(
    encoding: str, data: memoryview, rows: int, width: int, step: int, channels: int
) -> Image:
    """Return a view of `data` as (rows, width[, channels]), rows `step` bytes apart."""
    if step < width * channels:
        raise ImageError(
            f'encoding {encoding}: step is {step} bytes, but {width} pixels need {width * channels}'
        )
    if data.nbytes != rows * step:
        raise ImageError(
            f'encoding {encoding}: {data.nbytes} bytes of data, but {rows} rows with step {step} '
            f'are {rows * step}'
        )
    if channels == 1:
        return np.ndarray((rows, width), np.uint8, data, strides=(step, 1))
    return np.ndarray((rows, width, channels), np.uint8, data, strides=(step, channels, 1))


def _convert(image: Image, conversion: int, encoding: str) -> Image:
    try:
        return np.asarray(cv2.cvtColor(image, conversion), np.uint8)
    except (cv2.error, MemoryError) as error:
        raise ImageError(f'encoding {encoding}: not converted: {error}') from None
