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

"""JPEG and PNG streams that attack their reader: bombs, evasions, damage; and whole ones."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np


def picture(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Return blurred noise, bgr: edges and textures as a camera's image has them."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


def encoded(suffix: str, image: np.ndarray, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, image, list(options))
    assert done
    return data.tobytes()


# --- JPEG ----------------------------------------------------------------------------------------


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack('>BBH', 0xFF, marker, len(content) + 2) + content


def segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield marker, content and entropy-coded data of each segment of a whole JPEG."""
    at = 2
    while data[at + 1] != 0xD9:
        marker = data[at + 1]
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
        content, at = data[at + 4 : end], end
        if marker == 0xDA:
            while not (data[at] == 0xFF and data[at + 1] != 0 and data[at + 1] & 0xF8 != 0xD0):
                at += 1
        yield marker, content, data[end:at]


def assembled(parts: Sequence[tuple[int, bytes, bytes]]) -> bytes:
    return b'\xff\xd8' + b''.join(segment(m, c) + e for m, c, e in parts) + b'\xff\xd9'


def resized(data: bytes, height: int, width: int) -> bytes:
    """Return a JPEG that announces another size."""
    parts = [
        (m, c[:1] + struct.pack('>HH', height, width) + c[5:] if 0xC0 <= m <= 0xC2 else c, e)
        for m, c, e in segments(data)
    ]
    return assembled(parts)


def after_start(data: bytes, more: bytes) -> bytes:
    """Return a JPEG with `more` between its start and its first segment."""
    return data[:2] + more + data[2:]


def exif(orientation: int) -> bytes:
    """Return an APP1 segment that asks viewers to turn the image."""
    entry = struct.pack('<HHIHH', 0x0112, 3, 1, orientation, 0)
    tiff = b'II*\0' + struct.pack('<IH', 8, 1) + entry + bytes(4)
    return segment(0xE1, b'Exif\0\0' + tiff)


class _Bits:
    def __init__(self) -> None:
        self.bits: list[str] = []

    def put(self, bits: str) -> None:
        self.bits.append(bits)

    def stuffed(self) -> bytes:
        text = ''.join(self.bits)
        text += '1' * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, 'big').replace(b'\xff', b'\xff\x00')


_HEADER = (
    (0xDB, b'\0' + bytes([16] * 64), b''),
    # One code of one bit each: DC difference 0, end of block.
    (0xC4, b'\x00\x01' + bytes(15) + b'\0', b''),
    (0xC4, b'\x10\x01' + bytes(15) + b'\0', b''),
)


def gray_jpeg(height: int, width: int) -> bytes:
    """Return the smallest JPEG of a size: two bits a block, all of them 0."""
    blocks = -(-height // 8) * -(-width // 8)
    frame = struct.pack('>BHHB', 8, height, width, 1) + b'\x01\x11\x00'
    scan = b'\x01\x01\x00\x00\x3f\x00'
    return assembled([*_HEADER, (0xC0, frame, b''), (0xDA, scan, bytes(-(-blocks // 4)))])


def many_scans(height: int, width: int, bands: int) -> bytes:
    """Return a whole progressive JPEG of gray: one scan, then 14 for each band of coefficients."""
    blocks = -(-height // 8) * -(-width // 8)
    frame = struct.pack('>BHHB', 8, height, width, 1) + b'\x01\x11\x00'
    data = bytes(-(-blocks // 8))  # a bit for each block: no difference, or its end
    parts = [*_HEADER, (0xC2, frame, b''), (0xDA, b'\x01\x01\x00\x00\x00\x00', data)]
    for band in np.array_split(np.arange(1, 64), bands):
        for low in range(13, -1, -1):
            bits = (0 if low == 13 else low + 1) << 4 | low
            parts.append((0xDA, b'\x01\x01\x00' + bytes((band[0], band[-1], bits)), data))
    return assembled(parts)


# --- PNG -----------------------------------------------------------------------------------------

SIGNATURE = b'\x89PNG\r\n\x1a\n'


def chunk(name: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(name + content)
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', crc)


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], 'big')
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def png(
    height: int, width: int, idat: bytes, *, bits: int = 8, colour: int = 2, interlace: int = 0
) -> bytes:
    header = struct.pack('>IIBBBBB', width, height, bits, colour, 0, 0, interlace)
    return SIGNATURE + chunk(b'IHDR', header) + chunk(b'IDAT', idat) + chunk(b'IEND', b'')


def black_png(height: int, width: int, **kind: int) -> bytes:
    """Return a PNG of zeros, which deflate packs a thousandfold."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind.get('colour', 2)]
    row = bytes(1 + -(-width * channels * kind.get('bits', 8) // 8))
    packer = zlib.compressobj(9)
    packed = b''.join(packer.compress(row) for _ in range(height)) + packer.flush()
    return png(height, width, packed, **kind)


def with_chunk(data: bytes, name: bytes, content: bytes, at: int = 1) -> bytes:
    """Return a PNG with one more chunk, the `at`-th."""
    parts = chunks(data)
    parts.insert(at, (name, content))
    return SIGNATURE + b''.join(chunk(*each) for each in parts)


# --- Bombs ---------------------------------------------------------------------------------------


def gif_bomb() -> bytes:
    """Return 35 bytes that announce 65,535 × 65,535 pixels."""
    screen = struct.pack('<HHBBB', 65535, 65535, 0x80, 0, 0) + bytes(6)
    frame = b',' + struct.pack('<HHHHB', 0, 0, 65535, 65535, 0)
    return b'GIF89a' + screen + frame + b'\x02\x02\x44\x01\x00;'


def bmp_bomb() -> bytes:
    """Return a run-length coded BMP of 60,000 × 60,000 pixels."""
    info = struct.pack('<IiiHHIIiiII', 40, 60000, 60000, 1, 8, 1, 4, 0, 0, 1, 1)
    return b'BM' + struct.pack('<IHHI', 62, 0, 0, 58) + info + bytes(4) + b'\0\1\0\1'


def webp_bomb() -> bytes:
    """Return a lossless WebP header of 16,384 × 16,384 pixels."""
    body = b'\x2f' + struct.pack('<I', 16383 | 16383 << 14) + bytes(10)
    return b'RIFF' + struct.pack('<I', 12 + len(body)) + b'WEBPVP8L' + struct.pack('<I', 15) + body


@functools.cache
def bombs() -> dict[str, bytes]:
    """Return streams that would cost much and are refused, by name."""
    small = encoded('.jpg', picture())
    huge = resized(small, 60000, 60000)
    pgm = b'P5 60000 60000 255\n' + bytes(100)
    tiff = b'II*\0\x08\0\0\0' + bytes(64)
    frame = next(s for s in segments(small) if s[0] == 0xC0)
    late_size = assembled([*segments(resized(small, 0, 64)), (0xDC, struct.pack('>H', 60000), b'')])
    second = segment(0xC0, frame[1][:1] + struct.pack('>HH', 60000, 60000) + frame[1][5:])
    return {
        'GIF': gif_bomb(),
        'BMP RLE8': bmp_bomb(),
        'WebP': webp_bomb(),
        'PGM': pgm,
        'TIFF': tiff,
        'JPEG': huge,
        'JPEG behind TEM': after_start(huge, b'\xff\x01'),
        'JPEG behind fill bytes': after_start(huge, b'\xff' * 100_000),
        'JPEG behind a long comment': after_start(huge, segment(0xFE, bytes(65533)) * 2),
        'JPEG behind many comments': after_start(huge, segment(0xFE, b'') * 200_000),
        'JPEG with its height behind the data': late_size,
        'JPEG with two starts of frame': after_start(small, second),
        'JPEG with the second start of frame in between': small[:-2] + second + b'\xff\xd9',
        'JPEG of almost nothing': resized(gray_jpeg(64, 64), 3500, 3500),
        'JPEG, progressive, of almost nothing': resized(many_scans(64, 64, 1), 2400, 2400),
        'JPEG of 883 scans': many_scans(1000, 1000, 63),
        'PNG': png(60000, 60000, zlib.compress(bytes(1000))),
        'PNG of almost nothing': png(2400, 2400, zlib.compress(bytes(1000))),
        'PNG of endless data': png(64, 64, zlib.compress(bytes(300_000_000), 9)),
        'PNG of many chunks': SIGNATURE
        + chunk(b'IHDR', struct.pack('>IIBBBBB', 8, 8, 8, 2, 0, 0, 0))
        + chunk(b'tEXt', b'a\0b') * 100_000,
        'PNG, interlaced': png(60000, 60000, zlib.compress(bytes(1000)), interlace=1),
        'PNG of 16 bits': black_png(2000, 2000, bits=16),
        'PNG, animated': with_chunk(
            encoded('.png', picture()), b'acTL', struct.pack('>II', 1 << 30, 0)
        ),
        'PNG with a chunk longer than the file': SIGNATURE + b'\x7f\xff\xff\xffIHDR' + bytes(100),
    }


# --- Damage --------------------------------------------------------------------------------------

MUTATIONS = ('flip', 'delete', 'insert', 'repeat', 'zero', 'cut', 'swap')


def mutated(data: bytes, changes: Sequence[tuple[str, float, int, int]]) -> bytes:
    """Return `data` changed: kind, place from 0 to 1, number of bytes, a value of a byte."""
    for kind, place, size, value in changes:
        at = int(place * max(0, len(data) - 1))
        before, piece, after = data[:at], data[at : at + size], data[at + size :]
        if kind == 'flip' and piece:
            data = before + bytes((piece[0] ^ value,)) + piece[1:] + after
        elif kind == 'delete':
            data = before + after
        elif kind == 'insert':
            data = before + bytes((value,)) * size + piece + after
        elif kind == 'repeat':
            data = before + piece + piece + after
        elif kind == 'zero':
            data = before + bytes(len(piece)) + after
        elif kind == 'cut':
            data = before
        elif kind == 'swap':
            data = after + piece + before
    return data
