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

"""Python's cyclic garbage, collected between frames instead of in the middle of one."""

from __future__ import annotations

import gc

YOUNG, OLD = 30, 900
"""Calls from one collection of the middle generation, and of all, to the next."""


class BetweenFrames:
    """Takes over from the automatic collection, which looks at everything whenever it likes.

    What the start made (modules, the model, the node) is there until the end, and never looked at
    again. Without `take_over`, as in a process that has other uses, nothing changes.
    """

    def __init__(self) -> None:
        self._is_ours = False
        self._calls = 0

    def take_over(self) -> None:
        """Leave what there is alone, for ever, and end the automatic collection."""
        gc.freeze()  # without a collection before: it would take a tenth of the start
        gc.disable()
        self._is_ours = True

    def give_back(self) -> None:
        """Let the automatic collection have everything again: the end frees what is in cycles."""
        if self._is_ours:
            self._is_ours = False
            gc.unfreeze()
            gc.enable()

    def collect(self) -> None:
        """Collect what is young; now and then what is older. For moments when no frame waits."""
        if not self._is_ours:
            return
        self._calls += 1
        gc.collect(2 if self._calls % OLD == 0 else 1 if self._calls % YOUNG == 0 else 0)
