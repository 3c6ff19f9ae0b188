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

"""A wide detector and six drives of squares, for the command that optimises."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
pytest.importorskip('onnx', reason="importing needs onnx: extra 'train'")

from optimizing import Command, Place
from wide_detector import write_squares, write_wide_bundle

from pruned_perception.cli.main import main


@pytest.fixture(scope='session')
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Write them; do not change the files."""
    folder = tmp_path_factory.mktemp('optimize')
    bundle = write_wide_bundle(folder / 'dense')
    for drive in range(6):
        write_squares(folder / 'drives' / f'drive{drive}', 12, seed=drive)
    write_squares(folder / 'one', 40, seed=9)
    (folder / 'names.txt').write_text('\n'.join(bundle.labels))
    return Place(
        folder / 'dense', bundle.onnx_path, folder / 'drives', folder / 'one', folder / 'names.txt'
    )


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs the command here: exit code, and all that it printed."""

    def run(*arguments: Any) -> tuple[int, str]:
        code = main(['optimize', *(str(each) for each in arguments)])
        found = capsys.readouterr()
        return code, found.out + found.err

    return run
