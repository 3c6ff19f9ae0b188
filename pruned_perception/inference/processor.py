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

"""The processor at hand: its name, and the 8-bit arithmetic that it offers.

Networks in INT8 are fast only where four products of bytes are added up in one instruction
(Intel's VNNI and AMX, Arm's dot product and i8mm). Elsewhere x86 processors add pairs of products
in 16 bits, which saturate: one file gives other results there.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

# What /proc/cpuinfo calls it → what people call it; the first that is there is the best.
_X86 = {
    'amx_int8': 'AMX',
    'avx512_vnni': 'AVX-512 VNNI',
    'avx_vnni': 'AVX-VNNI',
    'avx512bw': 'AVX-512',
    'avx2': 'AVX2',
}
_ARM = {'i8mm': 'Arm i8mm', 'asimddp': 'Arm dot product', 'asimd': 'Arm NEON'}
DOT_PRODUCTS = ('AMX', 'AVX-512 VNNI', 'AVX-VNNI', 'Arm i8mm', 'Arm dot product')
"""Kinds of arithmetic with which INT8 pays, as far as it was measured."""


def processor_name() -> str:
    """Return what the processor calls itself."""
    names = _fields('model name')
    return names[0] if names else platform.processor() or platform.machine()


@cache
def integer_arithmetic() -> str:
    """Return the best 8-bit arithmetic that the processor offers, such as 'AVX-512 VNNI'.

    'unknown' where the system does not say; the engine may use less than there is.
    """
    flags = set(' '.join(_fields('flags') + _fields('Features')).split())
    known = {**_X86, **_ARM}
    return next((name for flag, name in known.items() if flag in flags), 'unknown')


def _fields(name: str) -> list[str]:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return []
    return [line.partition(':')[2].strip() for line in lines if line.startswith(name)]
