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

"""Where a model is: plain paths, names of shipped families and `package://` addresses."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pruned_perception.bundle.manifest import BundleError

SCHEME = 'package://'
MODELS = 'models'
"""Folder of the shipped families, in the checkout and in the package's share."""
_NAME = re.compile(r'[A-Za-z0-9_-]+')


def resolve_model(uri: str | os.PathLike[str]) -> Path:
    """Return the path of a bundle or family.

    `uri` is a path (`~` is expanded); the name of a family that is shipped, where no folder here
    is called so (`warehouse`); or `package://PACKAGE/SUB/PATH`, looked up as
    `share/PACKAGE/SUB/PATH` below each prefix of AMENT_PREFIX_PATH; for this package pip's prefix
    and the checkout's own folder come last, so that it works without a ROS environment.

    Raises BundleError that lists the places where it was looked for, or the names that there are.
    """
    text = os.fspath(uri)
    if not text.startswith(SCHEME):
        if not text:
            raise BundleError('no model given; give the path of a bundle or family')
        path = Path(text).expanduser()
        if not _NAME.fullmatch(text) or path.exists():
            return path
        return _family(text)

    package, _, inner = text[len(SCHEME) :].partition('/')
    if not package:
        raise BundleError(f'{text}: no package named; write {SCHEME}PACKAGE/SUB/PATH')
    places = [each / inner for each in _shares(package)]
    for place in places:
        if place.exists():
            return place
    tried = ', '.join(str(place) for place in places) or 'nowhere, as AMENT_PREFIX_PATH is empty'
    raise BundleError(
        f'{text}: not found (looked at: {tried}); is the package {package!r} installed and its '
        'workspace sourced?'
    )


def shipped_families() -> dict[str, Path]:
    """Return the folders of the families that come with this package, by name."""
    found: dict[str, Path] = {}
    for share in _shares(checkout_package()):
        for manifest in sorted((share / MODELS).glob('*/*/manifest.json')):
            found.setdefault(manifest.parents[1].name, manifest.parents[1])
    return found


def _family(name: str) -> Path:
    families = shipped_families()
    if name not in families:
        raise BundleError(
            f'{name}: no such bundle: there is no such folder here, and no family of that name is '
            f'shipped; there are {", ".join(sorted(families)) or "none"}'
        )
    return families[name]


def _shares(package: str) -> Iterator[Path]:
    """Yield the folders that may be a package's share, the first one wins."""
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        if prefix:
            yield Path(prefix) / 'share' / package
    if package == checkout_package():
        yield Path(sys.prefix) / 'share' / package
        yield Path(__file__).resolve().parents[2]


def checkout_package() -> str:
    """Return the name of this package, which is also that of its top-level module."""
    return __name__.partition('.')[0]
