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

"""Signed bundles: only those of a trusted key are loaded where keys are given."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pruned_perception.bundle import BundleError, load_bundle, load_family, load_member, signature
from pruned_perception.cli.main import main
from pruned_perception.errors import UserError

pytestmark = pytest.mark.skipif(shutil.which('ssh-keygen') is None, reason='needs ssh-keygen')


def make_key(folder: Path, name: str, kind: str = 'ed25519') -> Path:
    key = folder / name
    options = ['-q', '-N', '', '-t', kind, '-f', str(key), '-C', f'{name}@robot']
    subprocess.run(['ssh-keygen', *options], check=True)
    return key


@pytest.fixture(scope='module')
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp('keys')
    return {name: make_key(folder, name) for name in ('ours', 'theirs')}


def public(key: Path) -> Path:
    return key.with_name(f'{key.name}.pub')


@pytest.fixture
def family(tmp_path: Path, tiny_family: Path) -> Path:
    return Path(shutil.copytree(tiny_family, tmp_path / 'family'))


def test_what_is_signed_by_a_trusted_key_is_loaded(family: Path, keys: dict[str, Path]) -> None:
    assert main(['bundle', 'sign', str(family), '--key', str(keys['ours'])]) == 0
    trusted = signature.trusted_keys(public(keys['ours']))
    assert load_bundle(family / 'dense', trusted_keys=trusted).name == 'dense'
    assert load_member(family, 'small', trusted_keys=trusted).name == 'small'
    assert len(load_family(family, trusted_keys=trusted).members) == 2


def test_openssh_itself_verifies_it(family: Path, keys: dict[str, Path], tmp_path: Path) -> None:
    file = family / 'dense' / 'manifest.json'
    made = signature.sign(file, keys['ours'])
    signers = tmp_path / 'signers'
    signers.write_text(f'us {public(keys["ours"]).read_text()}')
    command = ['ssh-keygen', '-Y', 'verify', '-f', signers, '-I', 'us', '-n', 'pruned_perception']
    result = subprocess.run(
        [*map(str, command), '-s', str(made)], input=file.read_bytes(), check=False
    )
    assert result.returncode == 0


def test_what_is_unsigned_is_refused_where_keys_are_given(
    family: Path, keys: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['bundle', 'verify', str(family), '--trusted-keys', str(public(keys['ours']))]
    assert main(words) == 1
    assert 'not signed, but only signed bundles are trusted' in capsys.readouterr().err
    assert main(words[:3]) == 0


def test_one_unsigned_member_spoils_the_family(family: Path, keys: dict[str, Path]) -> None:
    signature.sign(family / 'small' / 'manifest.json', keys['ours'])
    trusted = signature.trusted_keys(public(keys['ours']))
    with pytest.raises(BundleError, match=r'dense/manifest\.json: not signed'):
        load_member(family, 'small', trusted_keys=trusted)


def test_another_key_a_changed_manifest_and_another_purpose_are_refused(
    family: Path, keys: dict[str, Path]
) -> None:
    file = family / 'dense' / 'manifest.json'
    trusted = signature.trusted_keys(public(keys['ours']))
    signature.sign(file, keys['theirs'])
    with pytest.raises(BundleError, match='not by a trusted key, or the manifest was changed'):
        load_bundle(file.parent, trusted_keys=trusted)
    signature.sign(file, keys['ours'])
    assert load_bundle(file.parent, trusted_keys=trusted)
    # Even in what no hash covers.
    file.write_text(file.read_text().replace('"evaluation": []', '"evaluation": [{"ap50": 1}]'))
    with pytest.raises(BundleError, match='the manifest was changed'):
        load_bundle(file.parent, trusted_keys=trusted)
    made = file.with_name('manifest.json.sig')
    made.unlink()
    options = ['-Y', 'sign', '-f', str(keys['ours']), '-n', 'git', str(file)]
    subprocess.run(['ssh-keygen', *options], check=True, capture_output=True)
    with pytest.raises(BundleError, match='not by a trusted key'):
        load_bundle(file.parent, trusted_keys=trusted)


@pytest.mark.parametrize('content', [b'', b'x', b'\0' * 70_000, 'pipe'])
def test_a_broken_signature_is_refused(
    family: Path, keys: dict[str, Path], content: bytes | str
) -> None:
    made = family / 'dense' / 'manifest.json.sig'
    if isinstance(content, str):
        os.mkfifo(made)
    else:
        made.write_bytes(content)
    with pytest.raises(BundleError, match=r'manifest\.json'):
        load_bundle(made.parent, trusted_keys=signature.trusted_keys(public(keys['ours'])))


def test_several_keys_may_be_trusted(family: Path, keys: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / 'trusted'
    text = '# who may update the robot\n\n' + ''.join(
        public(key).read_text() for key in keys.values()
    )
    file.write_text(text)
    for key in keys.values():
        signature.sign(family / 'dense' / 'manifest.json', key)
        assert load_bundle(family / 'dense', trusted_keys=signature.trusted_keys(file))


def test_files_of_keys_that_hold_something_else_are_refused(
    tmp_path: Path, family: Path, keys: dict[str, Path]
) -> None:
    file = tmp_path / 'trusted'
    with pytest.raises(UserError, match='cannot be read: No such file'):
        signature.trusted_keys(file)
    file.write_text('# nobody\n')
    with pytest.raises(UserError, match='no key in it'):
        signature.trusted_keys(file)
    other = make_key(tmp_path, 'other', 'ecdsa')
    with pytest.raises(UserError, match='line 1 is no Ed25519 public key'):
        signature.trusted_keys(public(other))
    with pytest.raises(UserError, match='not an Ed25519 key'):
        signature.sign(family / 'dense' / 'manifest.json', other)
    with pytest.raises(UserError, match='not an Ed25519 key'):
        signature.sign(family / 'dense' / 'manifest.json', tmp_path / 'nowhere')


def test_without_openssh_it_says_what_to_install(
    family: Path, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('PATH', '/nowhere')
    with pytest.raises(UserError, match='sudo apt install openssh-client'):
        signature.sign(family / 'dense' / 'manifest.json', keys['ours'])
