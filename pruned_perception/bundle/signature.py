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

"""Signatures of bundles: who made them, where hashes only say that nothing was damaged.

What is signed are the bytes of the manifest, which has the model's SHA-256: both are covered. The
format is OpenSSH's (PROTOCOL.sshsig), written and read by `ssh-keygen -Y`: nearly every robot has
it, keys that people have (also in an agent or a hardware token) sign, and no cryptography is
written here or added as a Python dependency. Only Ed25519 keys are taken.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pruned_perception._io import errors_of_writing, replacing
from pruned_perception.bundle.manifest import BundleError
from pruned_perception.bundle.reading import exists, read_file
from pruned_perception.errors import UserError

if TYPE_CHECKING:
    import subprocess

# What only signed bundles need is imported where it is used: it is not for every node's start.

SUFFIX = '.sig'
NAMESPACE = 'pruned_perception'
"""A signature that was made for something else (a commit, a mail) is none here."""

_MOST_BYTES = 1 << 16
_KEY = re.compile(r'(?:^|\s)((?:sk-)?ssh-ed25519(?:@openssh\.com)? [A-Za-z0-9+/]+={0,2})(?:\s|$)')
_SECONDS = 120.0  # somebody may type a passphrase


def sign(path: Path, key: Path) -> Path:
    """Sign the file at `path` with the private key (or, with an agent, the public one) in `key`.

    Returns the signature's path: that of the file with `.sig` appended; one that is there is
    replaced. Raises UserError where ssh-keygen does not sign.
    """
    signature = path.with_name(path.name + SUFFIX)
    if not _is_ed25519(key):
        raise UserError(
            f'{key}: not an Ed25519 key of OpenSSH; make one: ssh-keygen -t ed25519 -f {key}'
        )
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:  # never half a signature beside the manifest
        copy = Path(folder, 'manifest')
        copy.write_bytes(read_file(path, 1 << 30))
        # Its questions for a passphrase come on the terminal, not on the standard input.
        done = _ssh_keygen('-Y', 'sign', '-f', str(key), '-n', NAMESPACE, str(copy))
        if done.returncode:
            raise UserError(f'{path}: not signed: {_message(done)}')
        made = copy.with_name(copy.name + SUFFIX)
        with errors_of_writing(signature), replacing(signature) as temporary:
            temporary.write_bytes(made.read_bytes())
    return signature


def trusted_keys(file: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the Ed25519 public keys in a file, a line each, as in `~/.ssh/authorized_keys`.

    Raises UserError where there is none, or something else.
    """
    path = Path(file).expanduser()
    keys = []
    text = read_file(path, _MOST_BYTES).decode('utf-8', 'replace')
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith('#'):
            continue
        found = _KEY.search(line)
        if found is None:
            raise UserError(
                f'{path}: line {number} is no Ed25519 public key (ssh-ed25519 AAAA… comment)'
            )
        keys.append(found[1])
    if not keys:
        raise UserError(f'{path}: no key in it; nothing could be trusted')
    return tuple(keys)


def verify(path: Path, content: bytes, keys: Sequence[str]) -> str:
    """Return which of the public `keys` signed `content`, the bytes read from `path`.

    Raises BundleError where there is no signature, or none by these keys.
    """
    signature = path.with_name(path.name + SUFFIX)
    if not exists(signature):
        raise BundleError(
            f'{path}: not signed, but only signed bundles are trusted here (trusted_keys): sign it '
            'with `pruned-perception bundle sign`, or clear trusted_keys'
        )
    read_file(signature, _MOST_BYTES)
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        signers = Path(folder, 'allowed_signers')
        lines = (
            f'key-{number} namespaces="{NAMESPACE}" {key}\n' for number, key in enumerate(keys)
        )
        signers.write_text(''.join(lines))
        for number, key in enumerate(keys):
            done = _ssh_keygen(
                '-Y', 'verify', '-f', str(signers), '-I', f'key-{number}', '-n', NAMESPACE,
                '-s', str(signature), content=content,
            )  # fmt: skip
            if done.returncode == 0:
                return key
    raise BundleError(
        f'{path}: its signature {signature.name} is not by a trusted key, or the manifest was '
        f'changed after it was signed ({_message(done)}); fetch the bundle again from where you '
        'trust'
    )


def _is_ed25519(key: Path) -> bool:
    done = _ssh_keygen('-l', '-f', str(key))
    return done.returncode == 0 and done.stdout.rstrip().endswith((b'(ED25519)', b'(ED25519-SK)'))


def _ssh_keygen(*arguments: str, content: bytes = b'') -> subprocess.CompletedProcess[bytes]:
    import subprocess

    try:
        return subprocess.run(
            ['ssh-keygen', *arguments],
            input=content,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise UserError(
            'signatures need ssh-keygen (Debian, Ubuntu: sudo apt install openssh-client)'
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f'ssh-keygen did not end within {_SECONDS:g} s') from error


def _message(done: subprocess.CompletedProcess[bytes]) -> str:
    text = (done.stderr or done.stdout).decode('utf-8', 'replace').strip()
    return text.splitlines()[-1] if text else f'ssh-keygen ended with {done.returncode}'
