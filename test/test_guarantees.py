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

"""Every sentence that states a guarantee has a row in the guide, with a test that holds it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / 'docs' / 'guarantees.md'

IN_CODE = re.compile(
    r'\bprove[ns]?\b|guarante|\bcertain\b|certainty|confidence|probability|promis|'
    r'\bat (most|least)\b|\bcertif(y|ies|ied)\b|95 ?%|ALARM|'
    r'(stand|hold) together|together at|Holds after',
    re.IGNORECASE,
)
IN_DOCS = re.compile(
    r'\bprove[ns]?\b|guarante|certainty|confidence|with probability|promis', re.IGNORECASE
)
# Said of something else, or of a limit that is set and not found; what a command or option is for.
NO_STATEMENTS = (
    'score …, IoU …, at most … detections',
    'at most … ms late',
    '…: … for … s, at most … s',
    'certified with',
    'certify it (pruned-perception certify --parent DENSE --child THIS --holdout DRIVES --record)',
    'the drives that it is certified on',
    'a larger member, or certify again on drives like these and move watch_file away',
    'Certify how often a pruned network decides otherwise than its parent',
    'Prune object detectors with guarantees',
    'pruned-perception certify</code>',
    '[guarantees]',
    '16 at most',
    'boxes a picture; … at most',
    'brightness | confidence | detections',
    'mean confidence',
    'to prove itself alive',
    'Whether it keeps its promise on a machine',
)

# Names of settings, by file.
NAMES = {'pruned_perception/optimize/job.py': ('at most',)}


def rows() -> list[tuple[str, Path, str, str]]:
    """Return sentence, file, assumption and test of each row of the guide."""
    section = GUIDE.read_text(encoding='utf-8').split('## Sentences', 1)[1].split('\n## ', 1)[0]
    found = re.findall(r'^\| `(.+?)` \| (\S+) \| (.+?) \| `(\S+)` \|$', section, re.MULTILINE)
    return [(said.replace(r'\|', '|'), ROOT / file, a, test) for said, file, a, test in found]


def texts(path: Path) -> list[str]:
    """Return what a file may print: a page's lines, or the strings of code, “…” for what varies.

    Without docstrings, errors and the help of options, which state no guarantee.
    """
    content = path.read_text(encoding='utf-8')
    if path.suffix != '.py':
        content = re.sub(r'\{\{.*?\}\}', '…', content, flags=re.DOTALL)
        return [plain(re.sub(r'\]\([^)]*\)', ']', content))]  # without addresses of links
    return [plain(each) for each in strings(ast.parse(content)) if ' ' in each.strip()]


def strings(node: ast.AST) -> Iterator[str]:
    """Yield the strings of code, f-strings whole."""
    if isinstance(node, ast.Raise) or (isinstance(node, ast.keyword) and node.arg == 'help'):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    if isinstance(node, ast.JoinedStr):
        yield ''.join(str(v.value) if isinstance(v, ast.Constant) else '…' for v in node.values)
        parts: list[ast.AST] = [
            each for each in node.values if isinstance(each, ast.FormattedValue)
        ]
    else:
        parts = list(ast.iter_child_nodes(node))
    for part in parts:
        yield from strings(part)


def plain(text: str) -> str:
    """Return text on one line."""
    return re.sub(r'\s+', ' ', text)


def uncovered(text: str, pattern: re.Pattern[str], sentences: list[str]) -> list[str]:
    """Return the surroundings of what looks like a guarantee and is in none of the sentences."""
    spans = [
        match.span()
        for each in sentences
        for match in re.finditer(re.escape(plain(each)), text, re.IGNORECASE)
    ]
    return [
        text[max(0, found.start() - 50) : found.end() + 50]
        for found in pattern.finditer(text)
        if not any(start <= found.start() and found.end() <= end for start, end in spans)
    ]


CODE = sorted(
    path
    for suffix in ('*.py', '*.html')
    for path in (ROOT / 'pruned_perception').rglob(suffix)
    if path.parent.name != 'cli' or path.name == 'evaluate.py' or path.name == 'benchmark_soak.py'
)
PAGES = [ROOT / 'README.md', *sorted(set((ROOT / 'docs').glob('*.md')) - {GUIDE})]


@pytest.mark.parametrize('path', [*CODE, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_statement_has_a_row(path: Path) -> None:
    own = [sentence for sentence, file, *_ in rows() if file == path]
    own += NAMES.get(str(path.relative_to(ROOT)), ())
    pattern = IN_DOCS if path in PAGES else IN_CODE
    missing = [
        each for text in texts(path) for each in uncovered(text, pattern, [*own, *NO_STATEMENTS])
    ]
    assert not missing, f'add a row to "Sentences" of {GUIDE.name}: {missing}'


@pytest.mark.parametrize('row', rows(), ids=lambda row: f'{row[1].name}: {row[0][:40]}')
def test_every_row_is_said_and_held(row: tuple[str, Path, str, str]) -> None:
    sentence, file, assumption, test = row
    assert any(plain(sentence).lower() in text.lower() for text in texts(file)), 'said no more'
    assert assumption
    module, _, name = test.partition('::')
    assert f'def {name}(' in (ROOT / module).read_text(encoding='utf-8')


def test_a_new_statement_and_one_that_is_gone_would_be_found(tmp_path: Path) -> None:
    assert len(rows()) > 40
    code = tmp_path / 'new.py'
    code.write_text(
        'def f(x):\n    """Certain."""\n    return f"it misses {x}, proven at {x:.0%}"\n'
    )
    (text,) = texts(code)
    assert text == 'it misses …, proven at …'
    assert uncovered(text, IN_CODE, ['nothing is proven']) == [text]
    assert not uncovered(text, IN_CODE, ['proven at …'])
