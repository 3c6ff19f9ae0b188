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

"""Text for people: what came from outside shows, and never steers, the terminal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

from pruned_perception._tables import printable
from pruned_perception.errors import UserError


def say(text: str, *, file: TextIO | None = None) -> None:
    """Print lines, with what is no visible character escaped, at once."""
    print('\n'.join(map(printable, text.split('\n'))), file=file, flush=True)


def check_output(path: Path | None) -> None:
    """Raise UserError where a file cannot be written there: before the work, not after it."""
    if path is None:
        return
    if path.is_dir():
        raise UserError(f'{path}: is a folder; give a file')
    folder = next(each for each in path.absolute().parents if each.exists())
    if not folder.is_dir():
        raise UserError(f'{path}: cannot be written: {folder} is no folder')
    if not os.access(folder, os.W_OK):
        raise UserError(f'{path}: cannot be written: no permission in {folder}')


def check_file(path: Path) -> None:
    """Raise UserError where there is no such file."""
    if not path.exists():
        raise UserError(f'{path}: cannot be read: no such file')
    if path.is_dir():
        raise UserError(f'{path}: is a folder; give a file')


def check_yaml(path: Path) -> None:
    """Raise UserError where there is no YAML file with a mapping in it."""
    import yaml

    check_file(path)
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f'{path}: not YAML: {first}') from error
    if not isinstance(content, dict):
        raise UserError(f'{path}: has no fields; it is a YAML file with `name: value` on its lines')


def check_checkpoint(path: Path) -> None:
    """Raise UserError where there is no file, or none that PyTorch has written."""
    check_file(path)
    with path.open('rb') as file:
        start = file.read(2)
    if start != b'PK' and start[:1] != b'\x80':  # a zip archive; a pickle of old versions
        raise UserError(
            f'{path}: not a checkpoint, nor a state dict: no file that PyTorch has written'
        )
