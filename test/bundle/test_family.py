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

"""Families: one parent, one label set, dense first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pruned_perception.bundle import (
    BundleError,
    is_family,
    load_bundle,
    load_family,
    load_member,
)


@pytest.fixture
def family_folder(tmp_path, tiny_family) -> Path:
    """Return a copy that a test may damage."""
    return Path(shutil.copytree(tiny_family, tmp_path / 'family'))


def change_manifest(folder: Path, **changes) -> None:
    """Change fields as their owner would: without the hash that finds other changes."""
    file = folder / 'manifest.json'
    manifest = json.loads(file.read_text())
    manifest.pop('contract_sha256', None)
    file.write_text(json.dumps({**manifest, **changes}))


def test_members_are_ordered_by_cost_dense_first(tiny_family):
    family = load_family(tiny_family)
    assert [bundle.name for bundle in family.members] == ['dense', 'small']
    assert family.labels == ('red', 'green', 'blue')
    assert family.member().name == family.member('dense').name == 'dense'
    assert load_member(tiny_family).name == 'dense'
    assert load_member(tiny_family, 'small').name == 'small'


def test_other_files_beside_the_members_do_not_matter(family_folder):
    (family_folder / 'README.md').write_text('text')
    (family_folder / 'plots').mkdir()
    assert len(load_family(family_folder).members) == 2


def test_an_unknown_member_lists_those_there(tiny_family):
    with pytest.raises(BundleError, match=r"no member 'tiny' in this family; it has dense, small"):
        load_member(tiny_family, 'tiny')


def test_a_family_is_no_bundle(tiny_family):
    assert is_family(tiny_family)
    with pytest.raises(BundleError, match='a family, not a bundle; choose a member: dense, small'):
        load_bundle(tiny_family)


def test_a_bundle_or_an_empty_folder_is_no_family(tmp_path, tiny_bundle):
    for folder in (tmp_path, tiny_bundle.path, tmp_path / 'nowhere'):
        with pytest.raises(BundleError, match='not a family'):
            load_family(folder)


@pytest.mark.parametrize(
    ('member', 'changes', 'message'),
    [
        ('small', {'labels': ['red', 'green', 'pink']}, 'field labels: not those of dense'),
        ('small', {'parent': None}, r'exactly one member .*here: dense, small'),
        ('dense', {'parent': {'name': 'x', 'sha256': '0' * 64}}, r'exactly one member .*none'),
        (
            'small',
            {'parent': {'name': 'dense', 'sha256': '0' * 64}},
            r'field parent\.sha256: 0{64} is not the model of dense',
        ),
        ('small', {'name': 'dense'}, r"field name: 'dense' is there twice"),
        ('small', {'cost': {'parameters': 1, 'macs': 9999}}, r'field cost\.macs: 9999 is more'),
    ],
)
def test_members_that_do_not_belong_together_are_refused(family_folder, member, changes, message):
    change_manifest(family_folder / member, **changes)
    with pytest.raises(BundleError, match=message):
        load_family(family_folder)


def test_of_a_family_only_the_chosen_members_model_is_read(family_folder):
    (family_folder / 'dense' / 'model.onnx').unlink()
    assert load_member(family_folder, 'small').name == 'small'
    with pytest.raises(BundleError, match=r'dense/model\.onnx: no such file'):
        load_member(family_folder)
    with pytest.raises(BundleError, match=r'dense/model\.onnx: no such file'):
        load_family(family_folder)
