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

"""What the worker notices of frames between two reports: changes of the images, failures."""

from __future__ import annotations

import threading
from dataclasses import replace

from pruned_perception.nodes.diagnostics import Content, Failures


class FrameWatch:
    """Collects what one thread notices and another reports."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._content = Content()
        self._failures = Failures()

    def image(self, encoding: str, width: int, height: int, frame_id: str) -> None:
        """Take what an image was."""
        description = f'{encoding}, {width} × {height}'
        with self._lock:
            before = self._content
            self._content = replace(before, description=description, frame_id=frame_id)
            if before.description and description != before.description:
                self._content = replace(
                    self._content,
                    changes=before.changes + 1,
                    change=f'from {before.description} to {description}',
                    changed=True,
                )

    def unusable_image(self, reason: str) -> None:
        """Take why an image could not be used."""
        with self._lock:
            self._content = replace(self._content, error=reason)

    def malformed(self, reason: str) -> None:
        """Take why a message could not even be deserialised."""
        with self._lock:
            before = self._content
            self._content = replace(before, error=reason, malformed=before.malformed + 1)

    def failure(self, reason: str) -> None:
        """Take why the pipeline failed on a frame."""
        with self._lock:
            self._failures = replace(self._failures, count=self._failures.count + 1, reason=reason)

    def crowded(self, left_out: int) -> None:
        """Take how many candidates of a frame were not looked at."""
        with self._lock:
            before = self._failures
            self._failures = replace(
                before, crowded=before.crowded + 1, left_out=before.left_out + left_out
            )

    def take(self) -> tuple[Content, Failures]:
        """Return what was noticed since the last call."""
        with self._lock:
            noticed = self._content, self._failures
            self._content = replace(self._content, changed=False, error='')
            self._failures = Failures()
            return noticed
