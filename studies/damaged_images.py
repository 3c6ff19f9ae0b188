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

"""How much damage to JPEGs is seen, and what decoding takes in memory.

    python -m studies.damaged_images shared/data/coco128_train/images

Damage strikes the compressed data behind the headers, at random places; the same seed, the same
damage. Memory is the peak of a process of its own above what it had before, one for each image.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pruned_perception._tables import Table
from pruned_perception.images import ImageError, decode_image

FRAMES = 200
END = b'\xff\xd9'
NODE, ANY = 12_500_000, 1 << 26
"""Most pixels of the node's default and of all other sources."""

Damage = Callable[[bytes, int, np.random.Generator], bytes]


def _cut(data: bytes, start: int, generator: np.random.Generator) -> bytes:
    return data[: generator.integers(start, len(data) - 2)]


def _lost(count: int) -> Damage:
    def damage(data: bytes, start: int, generator: np.random.Generator) -> bytes:
        at = int(generator.integers(start, len(data) - 2 - count))
        return data[:at] + data[at + count :]

    return damage


def _flipped(data: bytes, start: int, generator: np.random.Generator) -> bytes:
    at = int(generator.integers(start, len(data) - 2))
    return data[:at] + bytes([data[at] ^ (1 << int(generator.integers(8)))]) + data[at + 1 :]


DAMAGES: dict[str, Damage] = {
    'cut off': _cut,
    'cut off, end marker appended': lambda *given: _cut(*given) + END,
    '1,400 bytes lost': _lost(1400),
    '512 bytes lost': _lost(512),
    '64 bytes lost': _lost(64),
    '8 bytes lost': _lost(8),
    'one bit flipped': _flipped,
}


def refused(files: list[Path]) -> dict[str, int]:
    """Return how many of FRAMES damaged frames are refused, by damage; whole ones are taken."""
    counts = dict.fromkeys(DAMAGES, 0)
    for number in range(FRAMES):
        data = files[number % len(files)].read_bytes().rpartition(END)[0] + END
        decode_image(data)
        start = data.rindex(b'\xff\xda') + 14  # behind the header of the (last) scan
        for name, damage in DAMAGES.items():
            generator = np.random.default_rng([number, *name.encode()])
            try:
                decode_image(damage(data, start, generator))
            except ImageError:
                counts[name] += 1
    return counts


_PROCESS = """
import sys
import cv2, numpy as np
from pruned_perception.images import decode_image

def kib(key):
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))

decode_image(cv2.imencode(sys.argv[1], np.zeros((64, 64, 3), np.uint8))[1].tobytes())
data = sys.stdin.buffer.read()
before = kib('VmRSS')
with open('/proc/self/clear_refs', 'w') as file:
    file.write('5')  # the peak is what is there now
image = decode_image(data, max_pixels=int(sys.argv[2]))
print((kib('VmHWM') - before) / 1024)
"""


def memory(suffix: str, options: list[int], pixels: int, limit: int) -> float:
    """Return MiB above what the process had, of one image of so many pixels."""
    import cv2

    width = int((pixels * 4 / 3) ** 0.5)
    height = pixels // width
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    image = cv2.resize(noise, (width, height))
    data = cv2.imencode(suffix, image, options)[1].tobytes()
    command = [sys.executable, '-c', _PROCESS, suffix, str(limit)]
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('images', type=Path, help='folder of JPEGs')
    args = parser.parse_args()
    files = sorted(args.images.glob('*.jpg'))
    rows = list(refused(files).items())
    print(Table.under(f'damage | refused of {FRAMES}:d', rows).to_markdown(), flush=True)
    import cv2

    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    kinds = (('JPEG', '.jpg', [], 1), ('JPEG of several scans', '.jpg', progressive, 2),
             ('PNG', '.png', [], 2))  # fmt: skip
    found = [
        (name, *(memory(suffix, options, limit // part, limit) for limit in (NODE, ANY)))
        for name, suffix, options, part in kinds
    ]
    print()
    print(Table.under('largest | of 12.5 MP, MiB:.0f | of 67 MP, MiB:.0f', found).to_markdown())


if __name__ == '__main__':
    main()
