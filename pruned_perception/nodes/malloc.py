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

"""glibc's malloc, told to keep image-sized buffers instead of giving them back after each frame."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

VARIABLE = 'PRUNED_PERCEPTION_MALLOC'
"""`system` in this environment variable leaves malloc alone."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_MMAP_THRESHOLD = 32 << 20  # glibc's largest
_TRIM_THRESHOLD = 256 << 20


def user_settings(environment: Mapping[str, str] = os.environ) -> str:
    """Return the environment variable by which the user has set malloc up already, or ''."""
    if environment.get(VARIABLE, '').lower() == 'system':
        return VARIABLE
    for variable in ('MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_'):
        if environment.get(variable):
            return variable
    if 'glibc.malloc.' in environment.get('GLIBC_TUNABLES', ''):
        return 'GLIBC_TUNABLES'
    if any(name in environment.get('LD_PRELOAD', '') for name in ('malloc', 'mimalloc')):
        return 'LD_PRELOAD'
    return ''


def keep_large_buffers(environment: Mapping[str, str] = os.environ) -> bool:
    """Serve blocks up to 32 MiB from the heap and keep 256 MiB of it.

    By default glibc maps a block of an image's size afresh for every frame and unmaps it after,
    so that each of its pages is faulted in and zeroed again: about half of the time that a frame
    spends outside the network. Call at process start. Returns False, with nothing done, where the
    user has settings (see `user_settings`) or the C library is not glibc.
    """
    if user_settings(environment):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl, macOS
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
    )


def give_back_unused() -> None:
    """Return the heap's free pages to the system; after loading a model there are many."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # not glibc
        return
