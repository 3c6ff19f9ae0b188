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

"""The Fast DDS profiles that carry images through shared memory, and when they are set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

VARIABLE = 'PRUNED_PERCEPTION_TRANSPORT'
"""`system` in this environment variable leaves the middleware's transports alone."""

PROFILE_VARIABLE = 'FASTDDS_DEFAULT_PROFILES_FILE'
OLD_PROFILE_VARIABLE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
"""What Fast DDS 2 reads; Fast DDS 3 warns about it."""

PROFILE, SMALL = 'fastdds.xml', 'fastdds_small.xml'
"""Side by side: of cameras, and of everybody where nothing else is said; of other processes."""

_FAST_DDS_2 = ('humble', 'iron', 'jazzy')
_USER_VARIABLES = (PROFILE_VARIABLE, OLD_PROFILE_VARIABLE, 'FASTDDS_BUILTIN_TRANSPORTS')


def profile() -> Path | None:
    """Return the path of config/fastdds.xml, installed or in the checkout; None if missing."""
    package = __name__.partition('.')[0]
    inner = Path('share', package, 'config', PROFILE)
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    places = [Path(prefix) / inner for prefix in prefixes if prefix]
    places.append(Path(__file__).resolve().parents[2] / 'config' / PROFILE)
    return next((place for place in places if place.is_file()), None)


def user_settings(environment: Mapping[str, str]) -> str:
    """Return the environment variable by which the user has chosen transports already, or ''."""
    if environment.get(VARIABLE, '').lower() == 'system':
        return VARIABLE
    for variable in _USER_VARIABLES:
        if environment.get(variable):
            return variable
    if 'fastrtps' not in environment.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp'):
        return 'RMW_IMPLEMENTATION'
    return ''


def environment(present: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to add to `present` for processes that send or receive images.

    Empty where the user has chosen transports (see `user_settings`) or the profile is missing.
    """
    path = profile()
    if user_settings(present) or path is None:
        return {}
    old = present.get('ROS_DISTRO', '') in _FAST_DDS_2
    return {OLD_PROFILE_VARIABLE if old else PROFILE_VARIABLE: str(path)}


def without_camera(present: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to change in `present` for a process that is no camera.

    Where our profile is set, it takes the one beside it with a sixth of the shared memory: whatever
    a participant reserves to send is in its resident memory, used or not.
    """
    changed = {}
    for variable in (PROFILE_VARIABLE, OLD_PROFILE_VARIABLE):
        given = Path(present.get(variable) or '.')
        if given.name == PROFILE and given.with_name(SMALL).is_file():
            changed[variable] = str(given.with_name(SMALL))
    return changed
