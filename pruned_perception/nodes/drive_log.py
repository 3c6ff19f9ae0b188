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

"""What was compared, drive by drive, in one small file that outlives the node."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruned_perception._io import read_json, write_json
from pruned_perception.errors import UserError
from pruned_perception.inference.evidence import DriveEvidence

GAP_S = 300.0
"""A drive ends where no image came for longer.

A node that is started again earlier goes on with the same drive: the parts of a drive resemble each
other, and would not be drives of their own.
"""
_WAY_OUT = 'move it away, or name another watch_file, to gather evidence anew'


def wall_seconds() -> float:
    """Return the time in seconds, as it goes on while no process runs."""
    return time.time()


class DriveLog:
    """The evidence of all drives that have ended, and the counts of the one that has not.

    Args:
        start: the evidence before any drive; tells which certificate it is of.
        file: where it is kept; None: in memory alone.

    Raises:
        UserError: the file is none of this certificate's, edited, cut off, or no file.
    """

    def __init__(self, start: DriveEvidence, file: Path | None) -> None:
        self.evidence = start
        self.file = file
        self.events = self.counts = 0
        """Of the drive that has not ended."""
        self._last = wall_seconds()
        self._written: Any = None
        if file is not None and (file.exists() or file.is_symlink()):
            self._read(file)

    def notice(self) -> None:
        """Tell that an image came."""
        self.look()
        self._last = wall_seconds()

    def look(self) -> None:
        """End the drive where no image came for long; also where the clock was set meanwhile."""
        if self.counts and abs(wall_seconds() - self._last) > GAP_S:
            self.evidence = self.evidence.after_drive(self.events, self.counts)
            self.events = self.counts = 0

    def add(self, events: int, counts: int) -> None:
        """Count a frame's events and what they are among."""
        self.events += events
        self.counts += counts

    def content(self) -> dict[str, Any]:
        """Return what is to be written."""
        data = {
            'evidence': self.evidence.to_dict(),
            'drive': {'events': self.events, 'counts': self.counts, 'last_image': self._last},
        }
        return {**data, 'sha256': _digest(data)}

    def write(self, content: Mapping[str, Any]) -> None:
        """Write the file, whole or not at all.

        Raises UserError where that fails, or where another process wrote to it meanwhile.
        """
        if self.file is None or content == self._written:
            return
        if self.file.exists() and (
            self._written is None or self._parsed(self.file) != self._written
        ):
            raise UserError(
                f'{self.file}: another process wrote to it meanwhile: each node has a file of its '
                f'own; {_WAY_OUT}'
            )
        write_json(self.file, content)
        self._written = content

    def _read(self, file: Path) -> None:
        data = self._parsed(file)
        plain = {key: data.get(key) for key in ('evidence', 'drive')}
        if data.keys() != {*plain, 'sha256'} or data['sha256'] != _digest(plain):
            raise UserError(f'{file}: evidence was edited or is damaged: {_WAY_OUT}')
        try:
            self.evidence = self.evidence.restore(data['evidence'])
        except UserError as error:
            raise UserError(f'{file}: {error}') from error
        drive = data['drive']
        self.events, self.counts, self._last = (
            drive[name] for name in ('events', 'counts', 'last_image')
        )
        self._written = data

    @staticmethod
    def _parsed(file: Path) -> dict[str, Any]:
        if not file.is_file():
            raise UserError(f'{file}: not a file')
        try:
            data = read_json(file)
        except UserError as error:
            raise UserError(f'{error}: cut off, or no evidence; {_WAY_OUT}') from error
        if not isinstance(data, dict):
            raise UserError(f'{file}: not evidence: {_WAY_OUT}')
        return data


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
