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

"""Where a model is: plain paths and `package://` addresses."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pruned_perception.bundle.manifest import BundleError

SCHEME = 'package://'


def resolve_model(uri: str | os.PathLike[str]) -> Path:
    """Return the path of a bundle or family.

    `uri` is a path (`~` is expanded) or `package://PACKAGE/SUB/PATH`, looked up as
    `share/PACKAGE/SUB/PATH` below each prefix of AMENT_PREFIX_PATH; for this package pip's prefix
    and the checkout's own folder come last, so that it works without a ROS environment.

    Raises BundleError that lists the places where it was looked for.
    """
    text = os.fspath(uri)
    if not text.startswith(SCHEME):
        if not text:
            raise BundleError('no model given; give the path of a bundle or family')
        return Path(text).expanduser()

    package, _, inner = text[len(SCHEME) :].partition('/')
    if not package:
        raise BundleError(f'{text}: no package named; write {SCHEME}PACKAGE/SUB/PATH')
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    places = [Path(prefix) / 'share' / package / inner for prefix in prefixes if prefix]
    checkout = Path(__file__).resolve().parents[2]
    if package == checkout_package():
        places += [Path(sys.prefix) / 'share' / package / inner, checkout / inner]
    for place in places:
        if place.exists():
            return place
    tried = ', '.join(str(place) for place in places) or 'nowhere, as AMENT_PREFIX_PATH is empty'
    raise BundleError(
        f'{text}: not found (looked at: {tried}); is the package {package!r} installed and its '
        'workspace sourced?'
    )


def checkout_package() -> str:
    """Return the name of this package, which is also that of its top-level module."""
    return __name__.partition('.')[0]
