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

"""`package://` addresses and paths."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pruned_perception.bundle import BundleError, resolve_model, shipped_families


@pytest.fixture
def prefixes(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Return two prefixes of AMENT_PREFIX_PATH; the second has my_robot's models."""
    first, second = tmp_path / 'first', tmp_path / 'second'
    (second / 'share' / 'my_robot' / 'models' / 'arm').mkdir(parents=True)
    first.mkdir()
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{first}{os.pathsep}{second}')
    return first, second


def test_a_path_stays_and_the_home_is_expanded(monkeypatch):
    monkeypatch.setenv('HOME', '/home/robot')
    assert resolve_model('models/a b') == Path('models/a b')
    assert resolve_model('~/models') == Path('/home/robot/models')


def test_a_package_is_looked_up_in_every_prefix(prefixes):
    _, second = prefixes
    found = resolve_model('package://my_robot/models/arm')
    assert found == second / 'share' / 'my_robot' / 'models' / 'arm'


def test_an_unknown_package_names_the_places_and_the_way_out(prefixes):
    first, second = prefixes
    with pytest.raises(BundleError) as error:
        resolve_model('package://other/models')
    assert str(first / 'share' / 'other' / 'models') in str(error.value)
    assert str(second / 'share' / 'other' / 'models') in str(error.value)
    assert "is the package 'other' installed and its workspace sourced?" in str(error.value)


def test_a_shipped_family_is_found_by_its_name(prefixes, tmp_path, monkeypatch):
    _, second = prefixes
    mine = second / 'share' / 'pruned_perception' / 'models' / 'football' / 'dense'
    mine.mkdir(parents=True)
    (mine / 'manifest.json').touch()
    assert resolve_model('football') == mine.parent
    assert {'football', 'warehouse'} <= shipped_families().keys()
    assert resolve_model('warehouse').name == 'warehouse'
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'football').mkdir()  # a folder here goes before
    assert resolve_model('football') == Path('football')


def test_a_family_that_is_not_shipped_is_answered_with_those_that_are():
    with pytest.raises(BundleError, match=r'no family of that name is shipped; .*warehouse'):
        resolve_model('warehose')
    assert resolve_model('nothing.onnx') == Path('nothing.onnx')  # a file's name


def test_without_an_environment_the_error_says_so(monkeypatch):
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    with pytest.raises(BundleError, match='AMENT_PREFIX_PATH is empty'):
        resolve_model('package://other/models')


def test_this_package_is_found_in_the_checkout():
    root = Path(__file__).resolve().parents[2]
    # A Python of its own, that imports the checkout and not an installed copy.
    environment = {**os.environ, 'PYTHONPATH': str(root), 'AMENT_PREFIX_PATH': ''}
    code = (
        'from pruned_perception.bundle import resolve_model\n'
        'print(resolve_model("package://pruned_perception/test"))'
    )
    command = [sys.executable, '-c', code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == str(root / 'test'), run.stderr


def test_an_installed_package_goes_before_the_checkout(tmp_path, monkeypatch):
    installed = tmp_path / 'share' / 'pruned_perception' / 'test'
    installed.mkdir(parents=True)
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    assert resolve_model('package://pruned_perception/test') == installed


@pytest.mark.parametrize('text', ['', 'package://'])
def test_nothing_given(text):
    with pytest.raises(BundleError):
        resolve_model(text)
