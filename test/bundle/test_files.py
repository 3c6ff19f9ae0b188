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

"""A bundle's files: what is no regular file, too large, or JSON with a catch, is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from pruned_perception.bundle import Bundle, BundleError, is_family, load_bundle, load_member
from pruned_perception.bundle.reading import MOST_JSON_BYTES, parse_json

FLIPS = int(os.environ.get('PRUNED_PERCEPTION_FLIPS', '300'))


@pytest.fixture
def folder(tmp_path: Path, tiny_bundle: Bundle) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / 'bundle'))


@pytest.mark.parametrize('name', ['manifest.json', 'model.onnx'])
@pytest.mark.parametrize('kind', ['pipe', 'device', 'folder'])
def test_what_is_no_regular_file_is_refused_and_never_waited_for(
    folder: Path, name: str, kind: str
) -> None:
    (folder / name).unlink()
    if kind == 'pipe':
        os.mkfifo(folder / name)
    elif kind == 'device':
        (folder / name).symlink_to('/dev/zero')
    else:
        (folder / name).mkdir()
    with pytest.raises(
        BundleError, match=rf'{name}: (not a regular file|cannot be read: Is a dir)'
    ):
        load_bundle(folder)


def test_a_symbolic_link_to_a_file_is_followed(folder: Path) -> None:
    """As `colcon build --symlink-install` makes them."""
    (folder / 'model.onnx').rename(folder / 'elsewhere')
    (folder / 'model.onnx').symlink_to('elsewhere')
    assert load_bundle(folder).onnx_bytes


def test_a_manifest_of_any_size_costs_no_more_memory_than_the_limit(folder: Path) -> None:
    with (folder / 'manifest.json').open('r+b') as file:
        file.truncate(500 << 20)  # a hole: 500 MB that take no room
    with pytest.raises(BundleError, match=f'at most {MOST_JSON_BYTES:,} are read'):
        load_bundle(folder)


@pytest.mark.parametrize('use', [load_bundle, load_member, is_family])
def test_an_absurd_path_is_refused_in_a_line(use) -> None:
    with pytest.raises(BundleError, match='File name too long') as caught:
        use('x' * 5000)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('{"a": 1e400}', 'too large'),
        ('{"a": [-1e999]}', 'too large'),
        ('{"a": 1, "a": 2}', "key 'a' is there twice"),
        ('{"b": {"a": 1, "a": 1}}', "key 'a' is there twice"),
        ('{"a": ' + '9' * 400 + '}', 'does not fit 64 bits'),
        ('{"a": ' + '9' * 5000 + '}', 'does not fit 64 bits'),
        ('{"a": NaN}', 'NaN is no JSON value'),
        (r'{"a": "\ud800"}', 'surrogates not allowed'),
        (r'{"\udfff": 1}', 'surrogates not allowed'),
        ('[' * 100 + ']' * 100, 'levels deep'),
        ('[' * 100_000, 'recursion'),
        ('{"a": "\xff"}', 'utf-8'),
    ],
)
def test_json_with_a_catch_is_refused(text: str, words: str) -> None:
    encoding = 'latin-1' if words == 'utf-8' else 'utf-8'
    with pytest.raises(BundleError, match=rf'm\.json: not JSON: .*{words}'):
        parse_json(text.encode(encoding), Path('m.json'))


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('labels', ['red', 'green', 'blue\x1b]0;title\x07']),
        ('labels', ['red', 'green', '\u202eeulb']),
        ('labels', ['red\n', 'green', 'blue']),
        ('labels', ['r' * 1000, 'green', 'blue']),
        ('name', 'tiny\n'),
        ('provenance', {'created': 'now\x1b[2J', 'tool': 'x'}),
    ],
)
def test_text_that_would_drive_a_terminal_is_refused(
    folder: Path, field: str, value: object
) -> None:
    manifest = json.loads((folder / 'manifest.json').read_text())
    del manifest['contract_sha256']
    (folder / 'manifest.json').write_text(json.dumps({**manifest, field: value}))
    with pytest.raises(BundleError, match=f'field {field}'):
        load_bundle(folder)


def test_every_flipped_bit_of_the_contract_is_refused(folder: Path) -> None:
    """What follows the contract in the file is evidence, which no robot acts on."""
    file = folder / 'manifest.json'
    whole = file.read_bytes()
    contract = whole[: whole.index(b'"pruning"')]
    draw = random.Random(0)
    for _ in range(FLIPS):
        place, bit = draw.randrange(len(contract)), draw.randrange(8)
        flipped = bytearray(whole)
        flipped[place] ^= 1 << bit
        file.write_bytes(flipped)
        with pytest.raises(BundleError):
            load_bundle(folder)
            pytest.fail(f'bit {bit} of {contract[place - 20 : place + 20]!r}')


def test_every_flipped_bit_of_the_model_is_refused(folder: Path) -> None:
    file = folder / 'model.onnx'
    whole = file.read_bytes()
    draw = random.Random(1)
    for _ in range(FLIPS):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        file.write_bytes(flipped)
        with pytest.raises(BundleError, match='altered'):
            load_bundle(folder)


def test_a_contract_changed_by_hand_says_how_to_own_it(folder: Path) -> None:
    file = folder / 'manifest.json'
    manifest = json.loads(file.read_text())
    manifest['thresholds']['score'] = 0.25
    file.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match='after a change of your own, take contract_sha256 out'):
        load_bundle(folder)
    del manifest['contract_sha256']
    file.write_text(json.dumps(manifest))
    assert load_bundle(folder).thresholds.score == 0.25


def test_evidence_may_be_added(folder: Path) -> None:
    file = folder / 'manifest.json'
    manifest = json.loads(file.read_text())
    manifest['evaluation'].append({'ap50': 0.5})
    file.write_text(json.dumps(manifest))
    assert load_bundle(folder).manifest['evaluation'][-1] == {'ap50': 0.5}
