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

"""What all machines that make cells of a comparison must have in common.

Run as a module it prints this as JSON, in the very interpreter, directory and environment that a
cell's process would have.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

import pruned_perception
from pruned_perception.compare.lease import FILE
from pruned_perception.compare.study import Study, read_study
from pruned_perception.pruning.errors import PruningError

RESULTS = 'folder of results'
_CHUNK = 1 << 20


def fingerprint(study: Study) -> dict[str, str]:
    """Return versions, and hashes of everything in files that results depend on.

    `data` is over the files that the comparison's field of that name lists.

    Raises:
        PruningError: a file of the comparison cannot be read.
    """
    own = Path(pruned_perception.__file__).parent
    sources = sorted(each for each in own.rglob('*.py'))
    return {
        'Python': '.'.join(platform.python_version_tuple()[:2]),
        'pruned_perception': f'{pruned_perception.__version__}, sources {_digest(own, sources)}',
        'torch': importlib.metadata.version('torch'),
        'numpy': importlib.metadata.version('numpy'),
        'comparison': _short(hashlib.sha256(''.join(c.digest for c in study.cells).encode())),
        'task': _task(study),
        'data': _data(study),
    }


def _task(study: Study) -> str:
    """Return a hash of the source file of the task's function."""
    module = study.task.partition(':')[0]
    if (here := str(Path.cwd())) not in sys.path:  # as `load_task` does
        sys.path.insert(0, here)
    found = None
    with contextlib.suppress(ImportError, ValueError):  # the cells will say so
        found = importlib.util.find_spec(module)
    if found is None or found.origin is None or not Path(found.origin).is_file():
        return f'no module {module}'
    return _digest(Path(found.origin).parent, [Path(found.origin)])


def _data(study: Study) -> str:
    if not study.data:
        return 'not listed'
    total = hashlib.sha256()
    for root in study.data:
        if not root.exists():
            raise PruningError(f'{study.path}: field data: {root}: no such file or folder')
        files = [each for each in root.rglob('*') if each.is_file()] if root.is_dir() else [root]
        total.update(_digest(root.parent, sorted(files)).encode())
    return _short(total)


def _digest(folder: Path, files: Iterable[Path]) -> str:
    """Return a hash of files, their names below a folder and what they hold."""
    total = hashlib.sha256()
    for path in files:
        total.update(f'{path.relative_to(folder).as_posix()}\0'.encode())
        with path.open('rb') as file:
            while chunk := file.read(_CHUNK):
                total.update(chunk)
        total.update(b'\0')
    return _short(total)


def _short(digest: hashlib._Hash) -> str:
    return digest.hexdigest()[:16]


def main() -> None:
    """Print the fingerprint of a comparison, and whose folder of results this machine sees."""
    path, results = sys.argv[1:]
    lease = Path(results, FILE)
    seen = lease.read_text(encoding='utf-8').split()[0] if lease.is_file() else 'no such folder'
    writable = os.access(results, os.W_OK)
    print(
        json.dumps(
            {RESULTS: seen if writable or not lease.is_file() else 'not writable'}
            | fingerprint(read_study(path))
        )
    )


if __name__ == '__main__':
    main()
