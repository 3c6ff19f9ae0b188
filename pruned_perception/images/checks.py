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

"""What a JPEG or PNG says of itself, read in full before a decoder sees a byte of it.

`checked` reads every segment and chunk, refuses what is damaged, too large or of another kind,
and writes the stream anew from the parts that make the pixels. So the decoder cannot read a
header otherwise than it was read here, and meets no metadata: no orientation, no colour profile,
no thumbnail, no animation.

Sources: ITU-T T.81 (JPEG), sections and tables as noted; T.871 (JFIF); W3C PNG, third edition.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pruned_perception.images.errors import ImageError

# 67 megapixels, or 400 MB: three bytes a pixel, and twice that while OpenCV hands them over.
MAX_PIXELS = 1 << 26
# No encoder comes near these numbers; a loop over more segments would cost more than the decoder.
MAX_SEGMENTS = 4096
MAX_CHUNKS = 16_384
MAX_SCANS = 64


# What is taken for an image by its name, as is any file that starts like one; those that are
# neither JPEG nor PNG are reported.
IMAGE_SUFFIXES = frozenset(
    (
        '.avif', '.bmp', '.dib', '.exr', '.gif', '.hdr', '.heic', '.heif', '.jfif', '.jp2', '.jpe',
        '.jpeg', '.jpg', '.jxl', '.pbm', '.pgm', '.png', '.pnm', '.ppm', '.tga', '.tif', '.tiff',
        '.webp',
    )
)  # fmt: skip


@dataclass(frozen=True)
class Checked:
    """A stream that may be decoded."""

    kind: str
    """'JPEG' or 'PNG'."""
    height: int
    width: int
    parts: tuple[bytes | memoryview, ...]
    """The stream written anew; joined, it is what the decoder is given."""


def checked(data: bytes | memoryview, max_pixels: int = MAX_PIXELS) -> Checked:
    """Return the image's size and the stream to decode.

    A PNG, and a JPEG of several scans, may have half of `max_pixels`, as decoding them takes up to
    twice the memory: 6 bytes a pixel or, for these, 12.

    Raises ImageError where `data` is neither JPEG nor PNG, is damaged or incomplete as far as its
    structure tells, has more than 8 bits a channel, more pixels than the limit, or too few bytes
    to hold the pixels that it announces.
    """
    data = memoryview(data).cast('B')
    kind = kind_of(bytes(data[:32]))
    if kind == 'JPEG':
        return _Jpeg(data, max_pixels).read()
    if kind == 'PNG':
        return _png(data, max_pixels)
    what = f'a {kind} file' if kind else 'of no known kind: damaged, or no image'
    raise ImageError(f'{what}; only JPEG and PNG are read')


def kind_of(start: bytes) -> str | None:
    """Return the format of an image whose first 32 bytes are `start`; None: none that is known."""
    return next((name for name, pattern in _KINDS.items() if re.match(pattern, start, re.S)), None)


# All but the first two only to say what it is: they are given to no decoder.
_KINDS: Mapping[str, bytes] = {
    'JPEG': rb'\xff\xd8',
    'PNG': rb'\x89PNG\r\n\x1a\n',
    'GIF': rb'GIF8[79]a',
    'BMP': rb'BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]',
    'WebP': rb'RIFF.{4}WEBP',
    'TIFF': rb'II\*\0|MM\0\*|II\+\0|MM\0\+',
    'JPEG 2000': rb'\0\0\0\x0cjP  |\xff\x4f\xff\x51',
    'JPEG XL': rb'\xff\x0a|\0\0\0\x0cJXL ',
    'HEIF or AVIF': rb'.{4}ftyp(hei|hev|mif|msf|avi)',
    'PNM': rb'P[1-7][\s]',
    'PFM': rb'P[Ff]\s',
    'OpenEXR': rb'\x76\x2f\x31\x01',
    'Radiance HDR': rb'#\?R',
    'Sun raster': rb'\x59\xa6\x6a\x95',
}


def check_size(height: int, width: int, max_pixels: int, kind: str = 'image') -> None:
    """Raise ImageError where there is no pixel, or more than `max_pixels`."""
    if height <= 0 or width <= 0:
        raise ImageError(f'{kind} of {width} × {height} pixels: there is nothing in it')
    if height * width > max_pixels:
        raise ImageError(
            f'{kind} of {width} × {height} pixels: more than {max_pixels} pixels; let the camera '
            'driver scale it down, or raise the limit'
        )


# --- JPEG ----------------------------------------------------------------------------------------

SOF0, SOF1, SOF2, DHT, DAC = 0xC0, 0xC1, 0xC2, 0xC4, 0xCC
RST0, SOI, EOI, SOS, DQT, DNL, DRI = 0xD0, 0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD
APP0, APP14, COM, TEM = 0xE0, 0xEE, 0xFE, 0x01
# Table B.1: starts of frame that the decoder is not given.
_REFUSED_FRAMES = {
    0xC3: 'lossless',
    0xC5: 'hierarchical',
    0xC6: 'hierarchical',
    0xC7: 'hierarchical',
    0xC9: 'arithmetic-coded',
    0xCA: 'arithmetic-coded',
    0xCB: 'arithmetic-coded',
    0xCD: 'arithmetic-coded',
    0xCE: 'arithmetic-coded',
    0xCF: 'arithmetic-coded',
    DAC: 'arithmetic-coded',
    0xDE: 'hierarchical',
    0xDF: 'hierarchical',
}
_JFIF = b'\xff\xe0\x00\x10JFIF\0\x01\x01\x00\x00\x01\x00\x01\x00\x00'
_ADOBE = b'\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00'
_RESTARTS = bytes(range(RST0, RST0 + 8))
# In entropy-coded data FF is followed by 00, or by a restart marker (B.1.1.5).
_END_OF_SCAN = re.compile(rb'\xff[^\x00\xd0-\xd7]')
_ANY_MARKER = re.compile(rb'\xff[^\x00]')
_RESTART = re.compile(rb'\xff([\xd0-\xd7])')
_FILL = re.compile(rb'\xff+')
# 64 coefficients of a code and a value, 16 bits at most each, every byte of them stuffed.
_MOST_BYTES = 64 * 4 * 2


@dataclass
class _Component:
    horizontal: int
    vertical: int
    precision: list[int] = field(default_factory=lambda: [-1] * 64)
    """Per coefficient the lowest bit that a scan has brought; −1: none, 0: all."""


class _Jpeg:
    """One pass over a JPEG's segments (B.2)."""

    def __init__(self, data: memoryview, max_pixels: int) -> None:
        self._data = data
        self._max_pixels = max_pixels
        self._parts: list[bytes | memoryview] = []
        self._components: dict[int, _Component] = {}
        self._height = self._width = 0
        self._frame = 0
        self._scans = 0
        self._interval = 0
        self._jfif = False
        self._adobe: int | None = None

    def read(self) -> Checked:
        data, at = self._data, 2
        for _ in range(MAX_SEGMENTS):
            marker, at = self._marker(at)
            if marker == EOI:
                return self._finish()
            if marker == TEM:  # stands alone, and means nothing
                continue
            if marker == SOI or RST0 <= marker < RST0 + 8 or marker < SOF0 or 0xF0 <= marker < COM:
                raise ImageError(f'damaged JPEG: marker FF{marker:02X} where none of it can be')
            end = at + int.from_bytes(data[at : at + 2], 'big')
            if end < at + 2 or end > len(data):
                raise ImageError('damaged JPEG: it is cut off, or a length in it is wrong')
            self._segment(marker, data[at + 2 : end])
            at = self._entropy_coded(end) if marker == SOS else end
        raise ImageError(f'JPEG of more than {MAX_SEGMENTS} segments')

    def _marker(self, at: int) -> tuple[int, int]:
        """Return the marker that must stand at `at`, behind any number of fill bytes."""
        fill = _FILL.match(self._data, at)
        if fill is None:
            if at >= len(self._data):
                raise ImageError('damaged JPEG: it is cut off, there is no end marker')
            raise ImageError(f'damaged JPEG: no marker at byte {at}')
        if fill.end() == len(self._data):
            raise ImageError('damaged JPEG: it is cut off, there is no end marker')
        return self._data[fill.end()], fill.end() + 1

    def _segment(self, marker: int, content: memoryview) -> None:
        if marker in (SOF0, SOF1, SOF2):
            self._start_of_frame(marker, bytes(content))
        elif marker in _REFUSED_FRAMES:
            raise ImageError(f'JPEG of a kind that is not read: {_REFUSED_FRAMES[marker]}')
        elif marker == DNL:
            raise ImageError('JPEG whose height stands behind its data (DNL); it is not read')
        elif marker == SOS:
            content = memoryview(self._start_of_scan(bytes(content)))
        elif marker == DRI:
            if len(content) != 2:
                raise ImageError('damaged JPEG: a restart interval of another length')
            self._interval = int.from_bytes(content, 'big')
        elif marker == APP0:
            self._jfif |= bytes(content[:5]) == b'JFIF\0' and len(content) >= 14
            return
        elif marker == APP14:
            if bytes(content[:5]) == b'Adobe' and len(content) >= 12:
                self._adobe = content[11]
            return
        elif marker not in (DHT, DQT):  # application data and comments
            return
        self._parts += [b'\xff%c' % marker, (len(content) + 2).to_bytes(2, 'big'), content]

    def _start_of_frame(self, marker: int, content: bytes) -> None:
        if self._frame:
            raise ImageError('damaged JPEG: a second start of frame')
        if len(content) < 6 or len(content) != 6 + 3 * content[5]:
            raise ImageError('damaged JPEG: a start of frame of another length')
        if content[0] != 8:
            raise ImageError(
                f'JPEG of {content[0]} bits a channel: a depth image, or one of another range; '
                'give 8 bits'
            )
        self._frame = marker
        self._height, self._width = (int.from_bytes(content[i : i + 2], 'big') for i in (1, 3))
        check_size(self._height, self._width, self._max_pixels, 'JPEG')
        if content[5] not in (1, 3, 4):
            raise ImageError(f'JPEG of {content[5]} components; 1, 3 and 4 are read')
        for at in range(6, len(content), 3):
            horizontal, vertical = content[at + 1] >> 4, content[at + 1] & 15
            if not (1 <= horizontal <= 4 and 1 <= vertical <= 4):
                raise ImageError('damaged JPEG: a sampling factor outside of 1 … 4')
            self._components[content[at]] = _Component(horizontal, vertical)
        if len(self._components) != content[5]:
            raise ImageError('damaged JPEG: two components of one name')

    def _start_of_scan(self, content: bytes) -> bytes:
        """Take a scan's header (B.2.3), and return it for the decoder."""
        self._scans += 1
        if self._scans > MAX_SCANS:
            raise ImageError(f'JPEG of more than {MAX_SCANS} scans')
        if not self._frame:
            raise ImageError('damaged JPEG: a scan before the start of frame')
        count = content[0] if content else 0
        names = content[1 : 1 + 2 * count : 2]
        if not 1 <= count <= 4 or len(content) != 4 + 2 * count or len(set(names)) != count:
            raise ImageError('damaged JPEG: the header of a scan')
        try:
            self._scanned = [self._components[name] for name in names]
        except KeyError:
            raise ImageError('damaged JPEG: a scan of a component that is not there') from None
        if self._scans == 2 or (self._scans == 1 and count < len(self._components)):
            check_size(self._height, self._width, self._max_pixels // 2, 'JPEG of several scans')
        first, last, high, low = content[-3], content[-2], content[-1] >> 4, content[-1] & 15
        if self._frame != SOF2:
            # Decoders read these four no further than to complain of them.
            first, last, high, low = 0, 63, 0, 0
        elif not (first <= last < 64 and low < 14 and (last == 0 if first == 0 else count == 1)):
            raise ImageError('damaged JPEG: the header of a progressive scan')
        self._bits = _least_bits(self._frame, first, high)
        for component in self._scanned:
            if first and component.precision[0] < 0:
                raise ImageError('damaged JPEG: a progressive scan before its first one')
            for k in range(first, last + 1):
                before = component.precision[k]
                if (before != -1 or high != 0) and (before != high or low != high - 1):
                    raise ImageError('damaged JPEG: a scan twice, or in the wrong order')
                component.precision[k] = low
        return content[:-3] + bytes((first, last, high << 4 | low))

    def _entropy_coded(self, start: int) -> int:
        """Take a scan's data; return where the marker behind it stands."""
        pattern = _END_OF_SCAN if self._interval else _ANY_MARKER
        end = pattern.search(self._data, start)
        if end is None:
            raise ImageError('damaged JPEG: it is cut off, there is no end marker')
        coded = self._data[start : end.start()]
        units, blocks = self._units()
        if self._interval:
            found = b''.join(_RESTART.findall(coded))
            expected = (units - 1) // self._interval
            if found != (_RESTARTS * (expected // 8 + 1))[:expected]:
                raise ImageError(
                    f'damaged JPEG: {len(found)} restart markers in a scan that needs {expected}, '
                    'or in the wrong order'
                )
        if 8 * len(coded) < blocks * self._bits:
            raise ImageError(
                f'damaged JPEG: {len(coded)} bytes cannot hold {self._width} × {self._height} '
                'pixels'
            )
        if len(coded) > _MOST_BYTES * blocks:
            raise ImageError(f'damaged JPEG: {len(coded)} bytes in a scan of {blocks} blocks')
        self._parts.append(coded)
        return end.start()

    def _units(self) -> tuple[int, int]:
        """Return the number of MCUs of the scan (A.2), and the least number of its blocks."""
        across = 8 * max(each.horizontal for each in self._components.values())
        down = 8 * max(each.vertical for each in self._components.values())
        if len(self._scanned) == 1:
            each = self._scanned[0]
            width = -(-self._width * each.horizontal // across)
            height = -(-self._height * each.vertical // down)
            return width * height, width * height
        units = -(-self._width // across) * -(-self._height // down)
        return units, units * sum(each.horizontal * each.vertical for each in self._scanned)

    def _finish(self) -> Checked:
        if any(any(each.precision) for each in self._components.values()) or not self._scans:
            raise ImageError('damaged JPEG: it is cut off, some of its scans are missing')
        head = [b'\xff\xd8']
        # What the colours mean, where the file says so; see the decoder's rules for those without.
        if self._jfif:
            head.append(_JFIF)
        if self._adobe is not None:
            transformed = 2 if len(self._components) == 4 else 1
            head.append(_ADOBE + bytes((self._adobe and transformed,)))
        return Checked('JPEG', self._height, self._width, (*head, *self._parts, b'\xff\xd9'))


def _least_bits(frame: int, first: int, high: int) -> int:
    """Return the least number of bits of a block: a code has one at least.

    Sequential: one code for DC, one for the end of the block (F.1.2). Progressive: one for DC or
    its refinement; a run of ends covers any number of blocks otherwise (G.1.2).
    """
    if frame != SOF2:
        return 2
    return 0 if first else 1


# --- PNG -----------------------------------------------------------------------------------------

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
# Colour type → channels, bits per channel allowed (table 9 of section 11.2.1).
_PNG_COLOURS = {
    0: (1, (1, 2, 4, 8, 16)),
    2: (3, (8, 16)),
    3: (1, (1, 2, 4, 8)),
    4: (2, (8, 16)),
    6: (4, (8, 16)),
}
# Passes of an interlaced image: first column and row, steps (section 8.1).
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def _png(data: memoryview, max_pixels: int) -> Checked:
    max_pixels //= 2  # its pixels are held twice more while they are unpacked
    if len(data) >= 24 and data[12:16] == b'IHDR':  # the size before checksums, which cost more
        height, width = (int.from_bytes(data[i : i + 4], 'big') for i in (20, 16))
        check_size(height, width, max_pixels, 'PNG')
    seen: list[bytes] = []
    palette: list[bytes] = []
    packed: list[memoryview] = []
    for name, content in _chunks(data):
        if (name == b'IHDR') != (not seen):
            raise ImageError('damaged PNG: IHDR must come first, and once')
        if name == b'IHDR':
            header = bytes(content)
            size = _unpacked_size(header)
        elif name in (b'acTL', b'fcTL', b'fdAT'):
            raise ImageError('an animated PNG; only single images are read')
        elif name == b'PLTE':
            if palette or packed or len(content) % 3 or not 0 < len(content) <= 768:
                raise ImageError('damaged PNG: its palette')
            palette.append(bytes(content))
        elif name == b'IDAT':
            if packed and seen[-1] != b'IDAT':
                raise ImageError('damaged PNG: its data are interrupted')
            packed.append(content)
        elif name == b'IEND':
            if header[9] == 3 and not palette:
                raise ImageError('damaged PNG: no palette')
            height, width = int.from_bytes(header[4:8], 'big'), int.from_bytes(header[:4], 'big')
            parts = [PNG_SIGNATURE, *_chunk(b'IHDR', header)]
            for each in palette:
                parts += _chunk(b'PLTE', each)
            parts += [*_chunk(b'IDAT', _repacked(packed, size)), *_chunk(b'IEND', b'')]
            return Checked('PNG', height, width, tuple(parts))
        elif not name[0] & 0x20:  # ancillary chunks make no pixels, all others do
            raise ImageError(f'PNG with a critical chunk {name!r} that is not known')
        if not seen or seen[-1] != name:
            seen.append(name)
    raise ImageError('damaged PNG: it is cut off, there is no end')


def _chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield name and content of each chunk; raises ImageError where one is damaged."""
    at = len(PNG_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if at == len(data):
            return
        end = at + 12 + int.from_bytes(data[at : at + 4], 'big')
        name = bytes(data[at + 4 : at + 8])
        if end > len(data):
            raise ImageError('damaged PNG: it is cut off, or a length in it is wrong')
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], 'big'):
            raise ImageError(f'damaged PNG: the checksum of {name!r} does not fit')
        yield name, data[at + 8 : end - 4]
        at = end
    raise ImageError(f'PNG of more than {MAX_CHUNKS} chunks')


def _chunk(name: bytes, content: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    crc = zlib.crc32(content, zlib.crc32(name))
    return len(content).to_bytes(4, 'big'), name, content, crc.to_bytes(4, 'big')


def _unpacked_size(header: bytes) -> int:
    """Return the number of bytes that the image's data unpack to (sections 7.2 and 8)."""
    if len(header) != 13:
        raise ImageError('damaged PNG: an image header of another length')
    width, height = (int.from_bytes(header[i : i + 4], 'big') for i in (0, 4))
    bits, colour, compression, filtering, interlace = header[8:]
    channels, allowed = _PNG_COLOURS.get(colour, (0, ()))
    if bits not in allowed or compression or filtering or interlace > 1:
        raise ImageError('damaged PNG: its image header')
    if bits == 16:
        raise ImageError(
            'PNG of 16 bits a channel: a depth image, or one of another range; give 8 bits'
        )
    size = 0
    for left, top, across, down in _ADAM7 if interlace else ((0, 0, 1, 1),):
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            size += rows * (1 + -(-columns * channels * bits // 8))
    return size


def _repacked(packed: list[memoryview], size: int) -> bytes:
    """Return the data, unpacked and found to be whole, in deflate's stored form.

    A stream that unpacks to more than `size` bytes is left off there. The decoder would follow it
    to its end, a thousandfold of what came in; and it need not unpack again what is stored.
    """
    if sum(map(len, packed)) > 2 * size + 1024:
        raise ImageError('damaged PNG: more data than pixels')
    unpacker = zlib.decompressobj()
    try:
        rows = unpacker.decompress(b''.join(packed), size + 1)
    except zlib.error as error:
        raise ImageError(f'damaged PNG: {error}') from None
    if len(rows) > size:
        raise ImageError('damaged PNG: more data than pixels')
    if len(rows) < size or not unpacker.eof:
        raise ImageError('damaged PNG: its data end early')
    return zlib.compress(rows, 0)
