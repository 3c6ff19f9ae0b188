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

"""`optimize` as a process that is broken off: the same command goes on, to the same weights."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

from optimizing import SHORT, Place, start


def model(family: Path) -> bytes:
    return (family / 'macs60' / 'model.onnx').read_bytes()


def arguments(place: Place, family: Path) -> list[Any]:
    return [place.dense, '--images', place.drives, '--macs', 0.6, *SHORT, 'report', '--out', family]


def test_broken_off_at_five_random_moments_ends_with_the_same_weights(place, tmp_path):
    whole = start(*arguments(place, tmp_path / 'whole'))
    lines = whole.communicate()[0].splitlines()
    assert whole.returncode == 0, '\n'.join(lines)
    rng = random.Random(0)
    family, codes = tmp_path / 'broken', []
    for number in range(5):
        process = start(*arguments(place, family))
        # A moment is a line of output and a while: so they are all over the work on any machine.
        for _ in range(rng.randrange(2, len(lines) - 4)):
            if not process.stdout.readline():
                break
        # The first comes at once: when all is done, as the interpreter ends, it would be no 130.
        time.sleep(rng.random() if number else 0)
        process.send_signal(signal.SIGKILL if number % 2 else signal.SIGINT)
        process.communicate()
        codes.append(process.returncode)
    assert {130, -signal.SIGKILL} <= set(codes)
    last = start(*arguments(place, family))
    text = last.communicate()[0]
    assert last.returncode == 0, text
    assert model(family) == model(tmp_path / 'whole')
