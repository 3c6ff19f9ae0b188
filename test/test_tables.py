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

"""One description of a table: plain, Markdown, rich; text from outside cannot steer a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pruned_perception._tables import Table, printable

HEADER = 'layer | kept:5d | share:.0% | '
ROWS = [
    ('stem', 8, 0.5, ''),
    ('a longer name', 123456, None, 'vacuous'),
    ('head', 'kept whole: it is the output of the network'),
]


def test_columns_stand_below_each_other_whatever_their_cells() -> None:
    assert Table.under(HEADER, ROWS).to_text().splitlines() == [
        'layer            kept  share',
        'stem                8    50%',
        'a longer name  123456      –  vacuous',
        'head           kept whole: it is the output of the network',
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert Table.under(HEADER, []).to_text() == 'layer  kept  share'


def test_markdown_has_as_many_cells_in_each_row() -> None:
    table = Table.under('name | n:d', [('a|b', 1), ('c', None)])
    assert table.to_markdown() == '| name | n |\n|---|---|\n| a\\|b | 1 |\n| c | – |'
    assert table.to_markdown(padded=True).splitlines() == [
        '| name | n |',
        '|------|---|',
        '| a\\|b | 1 |',
        '| c    | – |',
    ]


def test_rich_shows_headings_and_takes_no_markup_from_outside() -> None:
    out = io.StringIO()
    table = Table(
        [('', ''), ('/front[/red]', 'd')], [['frames'], ['[bold]sent', 3], [], ['lost', None]]
    )
    Console(file=out, width=60).print(table.to_rich({'lost': 'red'}))
    for text in ('/front[/red]', 'frames', '[bold]sent', '3', '–'):
        assert text in out.getvalue()
    assert out.getvalue().count('├') == 1


@pytest.mark.parametrize('hostile', ['\x1b[2J', '\x07', '\u202e', '\u2066', '\n', '\r', '\x9b'])
def test_what_steers_a_terminal_is_shown_instead(hostile: str) -> None:
    assert printable(f'cone{hostile}').isprintable()
    table = Table([('label', ''), (f'n{hostile}', 'd')], [(f'cone{hostile}', 1), (f'x{hostile}',)])
    assert len(table.to_text().split('\n')) == 3
    out = io.StringIO()
    Console(file=out, width=60).print(table.to_rich())
    for text in (table.to_text(), table.to_markdown(), out.getvalue()):
        assert hostile not in text.replace('\n', '')
    assert len(table.to_markdown().split('\n')) == 4


def test_letters_and_signs_of_any_script_stay() -> None:
    text = 'Größe ≤ 1 · コーン · S_ℓ'
    assert printable(text) == text
