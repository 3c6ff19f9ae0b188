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

"""`evaluate --by`: the tables of a family on a data set, printed and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from square_files import write_yolo
from tiny_detector import write_tiny_bundle

from pruned_perception.cli.main import main


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Return the command for a set of three squares, of which one is annotated far from there."""
    data = write_yolo(tmp_path / 'set')
    (tmp_path / 'set' / 'labels' / '1.txt').write_text('1 0.9 0.9 0.05 0.05\n')
    model = write_tiny_bundle(tmp_path / 'tiny').path
    return ['evaluate', str(data), '--model', str(model), '--resamples', '50']


def test_tables_say_what_is_found_and_what_is_right(
    words: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert main([*words, '--by', 'height=0,40', 'light']) == 0
    out = capsys.readouterr().out
    assert '**Found, percent of the objects, by box height, pixels of the picture**' in out
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in out.splitlines()]
    assert ['0–40', '1', '0.0'] in rows  # missed, and not said to be certain
    assert ['≥ 40', '2', '100.0'] in rows
    assert '**Right, percent of what is reported, by mean brightness of the frame' in out


def test_json_has_a_line_for_each_axis(words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main([*words, '--json', '--by', 'height=0,40', 'radius', '--classes', 'red']) == 0
    bundle, height, radius = map(json.loads, capsys.readouterr().out.splitlines())
    assert bundle['bundle'] == 'tiny'
    assert (height['by'], radius['by'], height['classes']) == ('height', 'radius', ['red'])
    assert height['bins']['≥ 40']['objects'] == 1
    assert height['bins']['≥ 40']['recall']['tiny'] == {'value': 1.0, 'interval': None}


def test_frames_without_groups_and_unknown_classes_are_refused_before_the_run(
    words: list[str], capsys: pytest.CaptureFixture
) -> None:
    for more, said in (
        (['--by', 'group'], 'does not say which frames belong together'),
        (['--by', 'height', '--classes', 'cat'], "'cat' is no class here: there are red"),
        (['--by', 'height', '--corruptions', '--out', 'x'], '--by is of clean frames'),
    ):
        assert main([*words, *more]) == 1
        out, err = capsys.readouterr()
        assert said in ' '.join(err.split())
        assert not out
