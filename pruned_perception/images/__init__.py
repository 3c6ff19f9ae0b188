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

"""Compressed images from strangers: read in full, refused or decoded; the one way to pixels.

What decodes is imported when it is first used: a node joins the robot's network before it loads
OpenCV.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pruned_perception.images.errors import ImageError
from pruned_perception.images.header import Header, read_header

if TYPE_CHECKING:
    from pruned_perception.images.decoding import decode_image, read_image

__all__ = ['Header', 'ImageError', 'decode_image', 'read_header', 'read_image']


def __getattr__(name: str) -> Any:
    if name not in ('decode_image', 'read_image'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from pruned_perception.images import decoding

    return getattr(decoding, name)
