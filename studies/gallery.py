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

"""A picture of what members do otherwise than their parent: frames side by side, failures first.

    python -m studies.gallery PARENT MEMBER … --images FOLDER --out gallery.jpg

As on the page that `optimize` writes: dashed boxes are what only the parent shows.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.bundle import Bundle, load_bundle
from pruned_perception.optimize.frames import collect
from pruned_perception.optimize.judging import compare_members, side_by_side

QUALITY = 72
BAR = 22
"""Height of the line above a picture, pixels."""


def gallery(bundles: list[Bundle], images: Path, frames: int) -> NDArray[np.uint8]:
    """Return rows of frames, a column for each network, the parent first."""
    with tempfile.TemporaryDirectory() as folder:
        pictures, _ = collect([images], Path(folder), limit=frames)
        parent = bundles[0]
        decisions = {each.name: compare_members(parent, each, pictures) for each in bundles[1:]}
        rows = []
        for row in side_by_side(pictures, bundles, decisions):
            views = []
            for view in row['views']:
                data = np.frombuffer(base64.b64decode(view['jpeg']), np.uint8)
                text = f'{view["name"]}: lost {view["lost"]}, added {view["added"]}'
                picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
                bar = np.full((BAR, picture.shape[1], 3), 255, np.uint8)
                cv2.putText(
                    bar, view['name'] if view is row['views'][0] else text, (4, BAR - 7),
                    cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA,
                )  # fmt: skip
                views.append(np.concatenate((bar, picture)))
            rows.append(np.concatenate(views, 1))
        return np.concatenate(rows)


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('bundles', type=Path, nargs='+', metavar='PARENT MEMBER')
    parser.add_argument('--images', type=Path, required=True)
    parser.add_argument('--names', nargs='+', help='above the columns; by default the bundles’ own')
    parser.add_argument('--frames', type=int, default=150, help='that are looked through')
    parser.add_argument('--width', type=int, default=1200, help='of the picture, pixels')
    parser.add_argument('--out', type=Path, required=True)
    args = parser.parse_args()
    bundles = [load_bundle(each) for each in args.bundles]
    names = args.names or [each.name for each in bundles]
    bundles = [replace(each, name=name) for each, name in zip(bundles, names, strict=True)]
    picture = gallery(bundles, args.images, args.frames)
    height = round(picture.shape[0] * args.width / picture.shape[1])
    small = cv2.resize(picture, (args.width, height), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(args.out), small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


if __name__ == '__main__':
    main()
