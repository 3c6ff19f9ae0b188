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

r"""What `pruned-perception evaluate --json` says of several bundles, as a table.

    pruned-perception evaluate DATA --model BUNDLE --json |
        python -m studies.evaluations RESULTS.csv

puts its lines into RESULTS.csv, one row a bundle, and prints the table (`--table`: only prints it).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pruned_perception._tables import Table

COLUMNS = (
    'bundle', 'sha256', 'annotations_sha256', 'images', 'boxes', 'score_threshold', 'ap50',
    'ap50_low', 'ap50_high', 'ap50_95', 'ap50_95_low', 'ap50_95_high', 'recall', 'precision',
)  # fmt: skip


def row(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Return a bundle's row: figures over all classes and sizes, and their intervals."""
    found = dict(evaluation)
    for name in ('ap50', 'ap50_95'):
        found[f'{name}_low'], found[f'{name}_high'] = evaluation[f'{name}_interval']
    return {name: str(found[name]) for name in COLUMNS}


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file; none where there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write the rows."""
    with path.open('w', encoding='utf-8', newline='') as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator='\n')
        table.writeheader()
        table.writerows(rows)


def to_text(rows: Iterable[Mapping[str, str]]) -> str:
    """Return a table: AP50 of each bundle with its interval."""
    cells = []
    for each in rows:
        ap, low, high = (float(each[name]) for name in ('ap50', 'ap50_low', 'ap50_high'))
        cells.append((each['bundle'], f'{ap:.3f} [{low:.3f}, {high:.3f}]'))
    return Table.under('bundle | AP50', cells).to_markdown()


def main() -> None:
    """Collect and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('results', type=Path, help='CSV file')
    parser.add_argument('--table', action='store_true', help='only print what is there')
    args = parser.parse_args()
    rows = {each['bundle']: each for each in read(args.results)}
    if not args.table:
        for line in sys.stdin:
            new = row(json.loads(line))
            rows[new['bundle']] = new
        write(args.results, rows.values())
    print(to_text(rows.values()))


if __name__ == '__main__':
    main()
