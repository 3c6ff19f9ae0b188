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

"""What is raised where data cannot be trusted, by kind, and the repairs that may be asked for."""

from __future__ import annotations

from pruned_perception.errors import UserError

REPAIRS = {
    'drop-images': 'leaves out pictures that are missing, damaged or there twice, and those whose '
    'labels cannot be read',
    'drop-shared': 'leaves a picture that is in several splits out of all but the last of train, '
    'val, test',
    'drop-boxes': 'leaves out what is no box, has no area, an unknown class or picture, or is '
    'there twice',
    'drop-scores': 'takes boxes with scores for ground truth, and forgets the scores',
    'clip': 'cuts boxes at the border of their picture, and leaves out what is all outside',
    'take-sizes': "takes a picture's own size where the annotations say another or none",
    'exif-upright': 'boxes are of the picture as viewers show it: turned to the stored one',
    'exif-stored': 'boxes are of the picture as it is stored: its orientation is dropped',
    'by-name': 'looks for a picture, whose path leads elsewhere, by its file name in the folder',
    'renumber': 'ignores the ids of annotations',
}

KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    'picture-missing': ('pictures that are missing', ('drop-images',)),
    'picture-unreadable': ('pictures that are damaged or of a kind not read', ('drop-images',)),
    'picture-size': ('pictures of another size than annotated', ('take-sizes',)),
    'picture-turned': ('pictures that EXIF turns', ('exif-upright', 'exif-stored')),
    'picture-twice': ('pictures annotated twice', ('drop-images',)),
    'picture-shared': ('pictures in two splits', ('drop-shared',)),
    'picture-place': ('pictures outside the folder', ('by-name',)),
    'labels-unreadable': ('files of labels that cannot be read', ('drop-images',)),
    'box-numbers': ('boxes that are no four finite numbers', ('drop-boxes',)),
    'box-area': ('boxes without area', ('drop-boxes',)),
    'box-outside': ('boxes outside their picture', ('clip',)),
    'box-pixels': ('boxes in pixels instead of shares', ()),
    'box-shares': ('boxes in shares instead of pixels', ()),
    'box-class': ('boxes of an unknown class', ('drop-boxes',)),
    'box-picture': ('boxes of an unknown picture', ('drop-boxes',)),
    'box-score': ('boxes with a score, as a detector writes', ('drop-scores',)),
    'box-twice': ('boxes that are there twice', ('drop-boxes',)),
    'box-id': ('ids of boxes that are there twice or none', ('renumber',)),
    'split-empty': ('splits without pictures', ()),
    'other': ('files that cannot be used', ()),
}
"""Kind → what it is, in the plural, and by which of REPAIRS it can be mended."""


class DataError(UserError):
    """A data set is missing, incomplete or contradicts itself; the text names file and place."""

    def __init__(self, text: str, kind: str = 'other') -> None:
        """Keep the text, and what kind of thing is wrong; the message adds the way out."""
        repairs = KINDS[kind][1]
        out = f' (a copy can be repaired: data convert --repair {" or ".join(repairs)})'
        super().__init__(text + out if repairs else text)
        self.text, self.kind = text, kind
