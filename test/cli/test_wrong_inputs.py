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


"""What is typed wrongly ends in one sentence that names the thing and the way out."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from wrong_inputs import WRONG, WRONG_OFF_LINE, make_place

from pruned_perception.cli.main import main

MOST_CHARACTERS = 700


@pytest.fixture(scope='module')
def place(tmp_path_factory, tiny_bundle, tiny_family) -> Path:
    return make_place(tmp_path_factory.mktemp('place'), tiny_bundle, tiny_family)


@pytest.mark.parametrize('line', [*WRONG, *WRONG_OFF_LINE])
def test_what_is_wrong_is_named_with_the_way_out(line, place, monkeypatch, capsys) -> None:
    if line in WRONG_OFF_LINE and importlib.util.find_spec('torch') is None:
        pytest.skip('needs torch')
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    before = sorted(place.rglob('*'))
    try:
        status = main(line.format(place=place).split())
    except SystemExit as end:
        status = end.code
    printed = capsys.readouterr()
    assert status not in (0, None)
    assert printed.out == ''
    lines = printed.err.strip().splitlines()
    said = [each for each in lines if not each.endswith(': begins')]  # a bar without a terminal
    assert len(said) == 1, printed.err
    assert said[0].startswith('pruned-perception') and ': error: ' in said[0]
    assert len(said[0].replace(str(place), '')) <= MOST_CHARACTERS
    for words in (WRONG | WRONG_OFF_LINE)[line]:
        assert words in said[0]
    after = sorted(each for each in place.rglob('*') if '__pycache__' not in each.parts)
    assert after == [each for each in before if '__pycache__' not in each.parts]
