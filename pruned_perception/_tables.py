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

"""Tables, described once and shown as plain text, as Markdown, by rich or on a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

UNKNOWN = '–'


def printable(text: str) -> str:
    r"""Return text as a terminal may have it: what is no visible character shows its escape.

    Labels, topics and files may hold control characters, which steer a terminal, and marks that
    turn the direction of writing, which make it lie.

    >>> print(printable('cone\x1b[31m \u202egnp.exe'))
    cone\x1b[31m \u202egnp.exe
    """
    return ''.join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def shown(value: object, spec: str) -> str:
    """Return a value by its format; text as it is, None as UNKNOWN."""
    if value is None:
        return UNKNOWN
    return value if isinstance(value, str) else format(value, spec)


@dataclass(frozen=True)
class Table:
    """Rows of cells below headers.

    `columns` are headers, each with its cells' format, as `format` takes it. Cells with one are set
    to the right, and its width is the column's least; without one they are to the left. Text is
    shown as it is (on terminals: if `printable`), None as UNKNOWN.

    A row with fewer cells than there are columns ends with a remark, which no column makes room
    for; if it has nothing else, it is a heading. A row without cells is a rule.

    >>> rows = [('stem', 8, 0.5), ('head', 'kept whole: it is the output')]
    >>> print(Table.under('group | kept:6d | share:.0%', rows).to_text())
    group    kept  share
    stem        8    50%
    head   kept whole: it is the output
    """

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[object]]

    @classmethod
    def under(cls, header: str, rows: Sequence[Sequence[object]]) -> Table:
        """Return a table under its header line: names between bars, formats behind last colons."""
        columns = []
        for each in header.split(' | '):
            name, colon, spec = each.rpartition(':')
            columns.append((name, spec) if colon else (each, ''))
        return cls(columns, rows)

    def cells(self) -> list[list[str]]:
        """Return the rows as text."""
        formats = [spec for _, spec in self.columns]
        return [[shown(*pair) for pair in zip(row, formats, strict=False)] for row in self.rows]

    def to_text(self) -> str:
        """Return lines of columns that are two spaces apart."""
        lines = self._lines()
        widths = self._widths(lines)
        right = [bool(spec) for _, spec in self.columns]
        return '\n'.join(_line(line, widths, right) for line in lines)

    def to_markdown(self, *, padded: bool = False) -> str:
        """Return a table in Markdown; padded, its source is one, too."""
        lines = [[cell.replace('|', r'\|') for cell in line] for line in self._lines()]
        if padded:
            widths = self._widths(lines)
            lines.insert(1, ['-' * width for width in widths])
            lines = [
                [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
                for line in lines
            ]
        else:
            lines.insert(1, ['---'] * len(self.columns))
        head, rule, *rest = (f'| {" | ".join(line)} |' for line in lines)
        return '\n'.join([head, rule.replace(' ', '-' if padded else ''), *rest])

    def to_rich(self, styles: Mapping[str, str] | None = None, **options: Any) -> Any:
        """Return rich's table; `styles` are of rows by their first cell, `options` are rich's."""
        from rich.table import Table as RichTable
        from rich.text import Text

        view = RichTable(**options)
        for name, spec in self.columns:
            view.add_column(Text(printable(name)), justify='right' if spec else 'left')
        for line in self._lines()[1:]:
            if len(line) < 2:
                view.add_section()
            if line:
                style = 'dim' if len(line) == 1 else (styles or {}).get(line[0])
                view.add_row(*map(Text, line), style=style)
        return view

    def _lines(self) -> list[list[str]]:
        """Return headers and rows, fit for terminals."""
        headers = [name for name, _ in self.columns]
        return [[printable(cell) for cell in line] for line in [headers, *self.cells()]]

    def _widths(self, lines: Iterable[Sequence[str]]) -> list[int]:
        """Return the columns' widths: a last cell that is a remark, or alone, has no say."""
        widths = [0] * len(self.columns)
        for line in lines:
            fitted = line if len(line) == len(widths) else line[:-1]
            for index, cell in enumerate(fitted):
                widths[index] = max(widths[index], len(cell))
        return widths


def _line(line: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    *fitted, last = line or ['']
    cells = [
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(fitted, widths, right, strict=False)
    ]
    whole = len(line) == len(widths) and right[-1]
    return '  '.join([*cells, last.rjust(widths[-1]) if whole else last]).rstrip()
