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
