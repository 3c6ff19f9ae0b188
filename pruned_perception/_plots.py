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

"""Figures by matplotlib, where it is installed."""

from __future__ import annotations

from typing import Any

from pruned_perception._tables import printable
from pruned_perception.errors import UserError


def matplotlib(error: type[UserError] = UserError) -> Any:
    """Return matplotlib, with its figures; raise `error` where it is missing."""
    try:
        import matplotlib.figure
    except ImportError as missing:
        raise error("plots need matplotlib: pip install 'pruned_perception[bench]'") from missing
    return matplotlib


def literal(text: str) -> str:
    """Return text as matplotlib is to draw it: `$` begins no formula."""
    return printable(text).replace('$', r'\$')
