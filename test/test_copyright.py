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

"""Every Python file begins with the copyright statement that ament_copyright looks for.

`python test/test_copyright.py` puts it into those that lack it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOLDER = 'the pruned_perception developers'
STATEMENT = f"""\
# Copyright 2026 {HOLDER}
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
"""


def sources() -> Iterator[Path]:
    """Yield the Python files of the checkout, those without content excepted."""
    folders = ('docs', 'examples', 'launch', 'pruned_perception', 'scripts', 'studies', 'test')
    for path in (ROOT / 'setup.py', *(p for each in folders for p in (ROOT / each).rglob('*'))):
        is_source = path.suffix == '.py' or path.parent.name == 'scripts'
        if is_source and path.is_file() and '__pycache__' not in path.parts and path.stat().st_size:
            yield path


def without_first_line(text: str) -> tuple[str, str]:
    """Return a file's first line where it is for the shell, and the rest."""
    if not text.startswith('#!'):
        return '', text
    first, end, rest = text.partition('\n')
    return first + end, rest


def test_every_source_begins_with_the_statement() -> None:
    found = list(sources())
    assert len(found) > 400
    lacking = [
        str(path.relative_to(ROOT))
        for path in found
        if not without_first_line(path.read_text())[1].lstrip('\n').startswith(STATEMENT)
    ]
    assert lacking == [], 'run python test/test_copyright.py'


def test_it_is_what_ament_copyright_takes(tmp_path: Path) -> None:
    import pytest

    parser = pytest.importorskip('ament_copyright.parser', reason='needs ament_copyright')
    for content in ('"""Text."""\n', '#!/bin/sh\nexec true\n'):
        source = tmp_path / 'source.py'
        source.write_text(stated(content))
        found = parser.parse_file(str(source))
        assert [each.name for each in found.copyrights] == [HOLDER]
        assert found.license_identifier == 'apache2'


def stated(text: str) -> str:
    """Return a file's text with the statement at its start."""
    first, rest = without_first_line(text)
    return f'{first}{STATEMENT}\n{rest}'


def main() -> None:
    """Put the statement where it is missing."""
    for path in sources():
        text = path.read_text(encoding='utf-8')
        if STATEMENT not in text:
            path.write_text(stated(text), encoding='utf-8')
            print(path)


if __name__ == '__main__':
    main()
