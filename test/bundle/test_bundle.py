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

"""Loading and writing: what is refused, and that the refusal names file, field and way out."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from tiny_detector import LABELS, tiny_manifest, tiny_onnx, write_tiny_bundle

from pruned_perception.bundle import (
    BundleError,
    is_family,
    load_bundle,
    load_member,
    write_bundle,
)


@pytest.fixture
def bundle_folder(tmp_path, tiny_bundle) -> Path:
    """Return a copy that a test may damage."""
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / 'bundle'))


def change_manifest(folder: Path, **changes) -> None:
    """Change fields as their owner would: without the hash that finds other changes."""
    file = folder / 'manifest.json'
    manifest = json.loads(file.read_text())
    manifest.pop('contract_sha256', None)
    file.write_text(json.dumps({**manifest, **changes}))


def test_what_is_written_is_loaded(tmp_path):
    onnx = tiny_onnx()
    written = write_bundle(tmp_path / 'new' / 'bundle', onnx, tiny_manifest(name='robot-1'))
    loaded = load_bundle(tmp_path / 'new' / 'bundle')
    assert loaded == written
    assert loaded.name == 'robot-1'
    assert loaded.onnx_bytes == onnx == loaded.onnx_path.read_bytes()
    assert loaded.sha256 == hashlib.sha256(onnx).hexdigest()
    assert loaded.labels == LABELS
    assert (loaded.input.height, loaded.input.width, loaded.input.channels) == (96, 128, 3)
    assert sorted(p.name for p in loaded.path.iterdir()) == ['manifest.json', 'model.onnx']


def test_writing_replaces_an_older_bundle(bundle_folder):
    new = write_tiny_bundle(bundle_folder, gain=20.0, name='newer')
    assert load_bundle(bundle_folder).sha256 == new.sha256
    assert load_bundle(bundle_folder).name == 'newer'


def test_an_invalid_manifest_is_not_written(tmp_path):
    with pytest.raises(BundleError, match='field labels: '):
        write_bundle(tmp_path / 'bundle', tiny_onnx(), tiny_manifest(labels=[]))
    with pytest.raises(BundleError, match='NaN or infinity'):
        evaluation = [{'ap50': float('nan')}]
        write_bundle(tmp_path / 'bundle', tiny_onnx(), tiny_manifest(evaluation=evaluation))
    assert not (tmp_path / 'bundle').exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(BundleError, match='file/bundle: cannot be written: Not a directory'):
        write_bundle(tmp_path / 'file' / 'bundle', tiny_onnx(), tiny_manifest())


def test_nothing_there(tmp_path):
    with pytest.raises(BundleError, match='nowhere: no such bundle: the folder does not exist'):
        load_bundle(tmp_path / 'nowhere')


def test_an_empty_folder(tmp_path):
    with pytest.raises(BundleError, match=r'not a bundle: there is no manifest\.json'):
        load_bundle(tmp_path)


def test_a_missing_model(bundle_folder):
    (bundle_folder / 'model.onnx').unlink()
    with pytest.raises(BundleError, match=r'model\.onnx: no such file, .*onnx\.file'):
        load_bundle(bundle_folder)


def test_a_truncated_model(bundle_folder):
    file = bundle_folder / 'model.onnx'
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r'model\.onnx: truncated: .*onnx\.bytes.*again'):
        load_bundle(bundle_folder)


def test_an_altered_model(bundle_folder):
    file = bundle_folder / 'model.onnx'
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r'model\.onnx: altered: .*onnx\.sha256.*again'):
        load_bundle(bundle_folder)


@pytest.mark.parametrize('version', [3, 99])
def test_a_newer_schema(bundle_folder, version):
    change_manifest(bundle_folder, schema_version=version)
    with pytest.raises(BundleError, match=rf'schema_version: {version} is newer .*update'):
        load_bundle(bundle_folder)


@pytest.mark.parametrize('version', [0, '1', True, None])
def test_a_wrong_schema(bundle_folder, version):
    change_manifest(bundle_folder, schema_version=version)
    with pytest.raises(BundleError, match=r'manifest\.json: field schema_version: .* is none of'):
        load_bundle(bundle_folder)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"schema_version": 1', 'not JSON'),
        ('[1, 2]', 'a JSON object, not list'),
        ('{"schema_version": NaN}', 'NaN is no JSON value'),
        ('\udcff', 'not JSON'),
    ],
)
def test_a_manifest_that_is_no_json_object(bundle_folder, text, message):
    (bundle_folder / 'manifest.json').write_bytes(text.encode('utf-8', 'surrogateescape'))
    with pytest.raises(BundleError, match=rf'manifest\.json: .*{message}'):
        load_bundle(bundle_folder)


@pytest.mark.parametrize(
    ('path', 'value', 'field'),
    [
        (('input', 'shape'), [1, 96, 128], r'input\.shape'),
        (('input', 'shape'), [1, 96, 128, 4], r'input\.shape'),
        (('input', 'shape'), [1, 3, 96, 128], r'input\.shape'),
        (('input', 'dtype'), 'float64', r'input\.dtype'),
        (('input', 'std'), [1, 0, 1], r'input\.std\.1'),
        (('input', 'mean'), [1, 0, 0], r'input\.mean'),
        (('input', 'extra'), 1, r'input\.extra'),
        (('input', 'layout'), 'HWC', r'input\.shape'),
        (('input', 'constants'), [{'name': 'size', 'values': []}], r'input\.constants\.0\.values'),
        (('output', 'names'), [], r'output\.names'),
        (('thresholds', 'score'), 1.5, r'thresholds\.score'),
        (('thresholds', 'max_detections'), 0, r'thresholds\.max_detections'),
        (('onnx', 'file'), '../model.onnx', r'onnx\.file'),
        (('onnx', 'sha256'), 'ABC', r'onnx\.sha256'),
        (('labels',), ['red', 'red', 'blue'], 'labels'),
        (('parent',), {'name': 'x'}, r'parent\.sha256'),
        (('name',), 'a/b', 'name'),
        (('surprise',), 1, 'surprise'),
    ],
)
def test_a_wrong_field_is_named(bundle_folder, path, value, field):
    manifest = json.loads((bundle_folder / 'manifest.json').read_text())
    section = manifest
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    (bundle_folder / 'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=rf'manifest\.json: field {field}: '):
        load_bundle(bundle_folder)


def test_a_missing_field_is_named(bundle_folder):
    manifest = json.loads((bundle_folder / 'manifest.json').read_text())
    del manifest['thresholds']['iou']
    (bundle_folder / 'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r'field thresholds\.iou: is missing'):
        load_bundle(bundle_folder)


@pytest.mark.parametrize('given', ['.', 'model.onnx'])
def test_an_onnx_without_a_manifest_tells_how_to_make_one(bundle_folder, given):
    (bundle_folder / 'manifest.json').unlink()
    with pytest.raises(BundleError, match=r'model\.onnx: .*`pruned-perception bundle create'):
        load_bundle(bundle_folder / given)


def test_a_file_of_a_bundle_tells_to_give_the_folder(bundle_folder):
    with pytest.raises(BundleError, match=f'give the bundle, the folder {bundle_folder}'):
        load_bundle(bundle_folder / 'model.onnx')


def test_a_single_bundle_is_no_family(tiny_bundle):
    assert not is_family(tiny_bundle.path)
    assert load_member(tiny_bundle.path).name == 'tiny'
    assert load_member(tiny_bundle.path, 'tiny').name == 'tiny'
    with pytest.raises(BundleError, match=r"no member 'small': this is the single bundle 'tiny'"):
        load_member(tiny_bundle.path, 'small')
