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

"""The stage times of every processed frame in a file, for analysis off-line."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

from pruned_perception.errors import UserError
from pruned_perception.inference.frame_times import FRAME_QUANTITIES, FrameTimes


class TimingsFile:
    """JSON Lines: the stamp, durations and ages in nanoseconds (age null: invalid), boxes.

    `note` only keeps a line, so that the worker never waits for the disk; `write` writes them.
    """

    def __init__(self, name: str) -> None:
        """Create the file `name`; raises UserError where it cannot be written."""
        path = Path(name).expanduser()
        self._lines: deque[dict[str, Any]] = deque()
        if path.is_fifo():
            raise UserError(
                f'parameter timings_file: {path} is a pipe, whose reader may never come'
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open('w', encoding='utf-8')
        except OSError as error:
            raise UserError(
                f'parameter timings_file: {path} cannot be written: {error.strerror}'
            ) from error

    def note(self, times: FrameTimes, detections: int) -> None:
        """Keep the line of one published frame."""
        quantities = {name: getattr(times, name) for name in FRAME_QUANTITIES}
        self._lines.append({'stamp_ns': times.stamp, **quantities, 'detections': detections})

    def write(self) -> None:
        """Write the lines kept so far; raises UserError, e.g. where the disk is full."""
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        try:
            self._file.writelines(json.dumps(line) + '\n' for line in lines)
            self._file.flush()
        except OSError as error:
            raise UserError(
                f'parameter timings_file: {self._file.name}: {error.strerror}; it ends here'
            ) from error
