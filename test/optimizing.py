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

"""What tests of `optimize` share: where things lie, and the command as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

SHORT = ('--round-to', '1', '--minutes', '0.1', '--recipe', 'quick', '--skip', 'int8')
"""What a test can wait for."""

Command = Callable[..., tuple[int, str]]


@dataclass(frozen=True)
class Place:
    """Where a detector and what its robot saw lie."""

    dense: Path
    onnx: Path
    drives: Path
    """A folder for each of six drives."""
    one_drive: Path
    names: Path


def start(*arguments: Any) -> subprocess.Popen[str]:
    """Start the command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, '-m', 'pruned_perception.cli.main', 'optimize', *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1'},
        start_new_session=True,
    )
