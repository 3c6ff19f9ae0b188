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


"""How often `bundle create --image` warns rightly and wrongly: published detectors, COCO pictures.

python -m studies.picture_check PICTURES BUNDLE…

Each bundle is prepared as its authors do. Of random draws of 1, 4 and 8 pictures: how often an
alternative is called clearly better than the right preparation (a false warning), and how often the
right one is called clearly better than each alternative (a wrong preparation that would be found).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from pruned_perception._tables import Table
from pruned_perception.bundle import load_bundle
from pruned_perception.inference.picture_check import Trial, trials

PICTURES, DRAWS = 40, 500


def main(folder: str, *bundles: str) -> None:
    """Print a table for each bundle."""
    files = sorted(Path(folder).rglob('*.jpg'))
    files = [files[k] for k in np.linspace(0, len(files) - 1, PICTURES).astype(int)]
    images = [(np.asarray(cv2.imread(str(file)), np.uint8), 'bgr') for file in files]
    for path in bundles:
        bundle = load_bundle(path)
        single = [trials(bundle, [each]) for each in images]
        rng = np.random.default_rng(0)
        rows = []
        for count in (1, 4, 8):
            wrongly, found = 0, np.zeros(len(single[0]) - 1)
            for _ in range(DRAWS):
                drawn = [single[k] for k in rng.choice(len(single), count, replace=False)]
                own, *others = (_together(each) for each in zip(*drawn, strict=True))
                wrongly += any(each.clearly_better(own) for each in others)
                found += [own.clearly_better(each) for each in others]
            rows.append((f'{count} pictures', wrongly / DRAWS, *(found / DRAWS)))
        names = [each.options for each in single[0][1:]]
        header = ' | '.join(f'{name}:.0%' for name in ('warned wrongly', *names))
        print(Table.under(f'{bundle.name} | {header}', rows).to_markdown(), end='\n\n')


def _together(of: tuple[Trial, ...]) -> Trial:
    """Return the trials of single pictures as one of all of them."""
    return replace(
        of[0],
        pictures=len(of),
        scores=sum(each.scores for each in of),
        again=sum(each.again for each in of),
    )


if __name__ == '__main__':
    main(*sys.argv[1:])
