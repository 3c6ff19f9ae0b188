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

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from studies import evaluations

EVALUATION = {
    'bundle': 'dense', 'sha256': 'ab', 'annotations_sha256': 'cd', 'images': 3, 'boxes': 7,
    'score_threshold': 0.4, 'ap50': 0.83761, 'ap50_interval': [0.82, 0.85], 'ap50_95': 0.5,
    'ap50_95_interval': [0.4, 0.6], 'recall': 0.7, 'precision': 0.9, 'per_class': {},
}  # fmt: skip


def collect(path: Path, monkeypatch: pytest.MonkeyPatch, *found: dict) -> None:
    monkeypatch.setattr('sys.stdin', io.StringIO(''.join(f'{json.dumps(e)}\n' for e in found)))
    monkeypatch.setattr('sys.argv', ['evaluations', str(path)])
    evaluations.main()


def test_each_bundle_has_the_row_of_its_last_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'results.csv'
    collect(path, monkeypatch, EVALUATION, {**EVALUATION, 'bundle': 'half', 'ap50': 0.7})
    collect(path, monkeypatch, {**EVALUATION, 'bundle': 'half', 'ap50': 0.8})
    assert [each['ap50'] for each in evaluations.read(path)] == ['0.83761', '0.8']
    assert '| dense | 0.838 [0.820, 0.850] |' in capsys.readouterr().out
