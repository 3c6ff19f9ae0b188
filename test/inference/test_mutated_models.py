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

"""A model with a right hash may still be anything: it is loaded, refused or broken off.

PRUNED_PERCEPTION_FUZZ=25 makes a long run of it: 1,000 models.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

COUNT = 40 * int(os.environ.get('PRUNED_PERCEPTION_FUZZ', '1'))


def test_mutated_models_neither_hang_nor_crash():
    script = Path(__file__).resolve().parents[1] / 'mutated_models.py'
    result = subprocess.run(
        [sys.executable, str(script), str(COUNT)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    counts = json.loads(result.stdout)
    assert sum(counts.values()) == COUNT
    assert set(counts) <= {'loaded', 'refused', 'broken off'}, result.stderr
