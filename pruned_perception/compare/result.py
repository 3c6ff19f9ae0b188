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

"""What a cell's file holds, and where the files of a comparison are."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruned_perception._io import read_json, write_json
from pruned_perception.compare.study import Cell
from pruned_perception.errors import UserError
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.records import Record
from pruned_perception.training.outcomes import Outcomes
from pruned_perception.training.pipeline import PipelineRecord

FORMAT = 1


@dataclass(frozen=True)
class Result(Record):
    """What a cell's file holds.

    `before` and `after` fine-tuning are figures on held-out data, by which methods are chosen;
    `test` those on test data, once somebody looked. `shares` are of the parent's cost.
    """

    cell: str
    label: str
    digest: str
    configuration: dict[str, Any]
    before: dict[str, float]
    after: dict[str, float]
    test: dict[str, float] | None
    test_at: str | None
    shares: dict[str, float]
    pipeline: PipelineRecord
    cpu_seconds: float
    finished_at: str
    versions: dict[str, str]
    outcomes: Outcomes | None = None
    """Of `after`, image by image; None where the task has none."""
    test_outcomes: Outcomes | None = None

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        return {'format': FORMAT, **data}

    @classmethod
    def _given(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: value for name, value in data.items() if name != 'format'}

    def to_text(self) -> str:
        """Return the figures, and what each stage of the pipeline did."""
        lines = [f'{self.cell}: ' + ', '.join(f'{k} {v:.4g}' for k, v in self.after.items())]
        if self.test is not None:
            lines.append('test: ' + ', '.join(f'{k} {v:.4g}' for k, v in self.test.items()))
        return '\n'.join([*lines, self.pipeline.to_text()])


def result_path(results: Path, cell: Cell) -> Path:
    """Return where a cell's result is."""
    return results / f'{cell.name}.json'


def find_result(results: Path, cell: Cell) -> Result | None:
    """Return a cell's result, if it is there and of this very configuration."""
    path = result_path(results, cell)
    if not path.exists():
        return None
    try:
        data = read_json(path)
    except UserError as error:
        raise PruningError(f'{error}; delete it') from error
    result = Result.from_dict(data)
    return result if result.digest == cell.digest else None


def find_failure(results: Path, cell: Cell) -> str | None:
    """Return why the cell failed when it was last tried, if it did."""
    path = failure_path(results, cell)
    if not path.is_file():
        return None
    return str(read_json(path)['reason'])


def record_failure(results: Path, cell: Cell, reason: str) -> None:
    """Write why the cell failed, until it succeeds."""
    record = {'cell': cell.name, 'digest': cell.digest, 'reason': reason, 'at': now()}
    write_json(failure_path(results, cell), record)


def failure_path(results: Path, cell: Cell) -> Path:
    """Return where it is written why a cell failed."""
    return results / f'{cell.name}.failed.json'


def now() -> str:
    """Return the time as results have it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')
