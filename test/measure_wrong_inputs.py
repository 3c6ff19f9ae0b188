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


"""How long a user waits to be told what was wrong: each command line as a process of its own.

python test/measure_wrong_inputs.py
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tiny_detector import write_tiny_bundle
from wrong_inputs import WRONG, WRONG_OFF_LINE, make_place

from pruned_perception._tables import Table


def main() -> None:
    """Print wall and processor time of each, the longest first."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dense = write_tiny_bundle(folder / 'family' / 'dense', name='dense', macs=2000)
        parent = {'name': dense.name, 'sha256': dense.sha256}
        small = {'name': 'small', 'macs': 1000, 'gain': 39.0, 'parent': parent}
        write_tiny_bundle(folder / 'family' / 'small', **small)
        (folder / 'place').mkdir()
        place = make_place(folder / 'place', dense, folder / 'family')
        rows = sorted((measured(line, place) for line in (*WRONG, *WRONG_OFF_LINE)), reverse=True)
        least = sorted(cpu for _, cpu, *_ in rows)
        print(Table.under('wall, s:.2f | CPU, s:.2f | status:d | command', rows).to_text())
        within = sum(wall < 1 for wall, *_ in rows)
        little, median = sum(cpu < 1 for cpu in least), least[len(least) // 2]
        print(
            f'{within} of {len(rows)} within a second, {little} within a second of CPU time, whose '
            f'median is {median:.2f} s'
        )


def measured(line: str, place: Path) -> tuple[float, float, int, str]:
    """Return wall time, processor time (s), exit status, and the command."""
    command = [
        sys.executable,
        '-m',
        'pruned_perception.cli.main',
        *line.format(place=place).split(),
    ]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join(filter(None, (str(place), *sys.path))),
    }
    done = subprocess.run(command, cwd=place, capture_output=True, check=False, env=environment)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return wall, cpu, done.returncode, line


if __name__ == '__main__':
    main()
