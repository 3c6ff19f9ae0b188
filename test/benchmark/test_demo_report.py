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

"""The demonstration's page and summary say what latency.json says, whatever things are called."""

from __future__ import annotations

import html
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip('matplotlib')
pytest.importorskip('jinja2')

from pruned_perception.benchmark.demo import Demonstration, Run
from pruned_perception.benchmark.report import render, summary
from pruned_perception.benchmark.results import PATH, Frames, run_section

HOSTILE = ('<script>$x^{$</script>', 'a$b$c & [red]\x1b[2J\u202e')
COUNT = 60


def frames() -> Frames:
    """Return frames of stages of 1, 2, … ms, and what follows from them."""
    stages = {name: np.full(COUNT, 1.0 + index) for index, name in enumerate(PATH)}
    whole = sum(stages.values())
    ends = {'e2e_receive': whole, 'overhead': whole - stages['inference'], 'e2e_publish': whole}
    return Frames(np.arange(COUNT) * 10**8, np.arange(COUNT) / 10, {**stages, **ends})


def section(name: str, model: str, labels: tuple[str, ...]) -> dict[str, Any]:
    accuracy = {
        'images': 50,
        'score_threshold': 0.5,
        'ap50': 0.75,
        'ap50_95': 0.5,
        'ap50_interval': [0.7, 0.8],
        'ap50_95_interval': None,
        'recall': 0.9,
        'precision': None,
        'small': {'longer_side_below_px': 48, 'boxes': 7, 'recall': 0.25},
        'per_class': {label: {'boxes': 3, 'ap50': 0.5} for label in labels},
    }
    totals = {
        'model': model,
        'received': COUNT,
        'loss_out': 0,
        'counters': {'published': COUNT},
        'invalid_stamps': 0,
        'cpu_percent': 20.0,
        'rss_mib': None,
    }
    made = run_section(
        name, frames(), totals, clock='system', description='<i>', sent=COUNT + 1, behind_ms=2.0
    )
    return {**made, 'accuracy': accuracy}


def demonstration(folder: Path, names: tuple[str, str], labels: tuple[str, ...]) -> Demonstration:
    first, second = names
    machine = {
        'cpu': '<cpu>',
        'cores': 2,
        'load_average': [0.5, 0.25, 0.0],
        'os': 'Linux',
        'python': '3.11',
        'versions': {'numpy': '2'},
    }
    document = {
        'created': 'today',
        'tool': 'pruned_perception',
        'command': 'demo',
        'environment': machine,
        'configuration': {'threads': 1},
        'input': {'topics': {'/<t>': 61}, 'lost_while_recording': {'/<t>': 1}, 'bag_sha256': 'ab'},
        'labels': list(labels),
        'models': [{'member': name, 'macs': 2e9, 'onnx_sha256': 'cd'} for name in names],
        'runs': [section(*each, labels) for each in (('live', first), (first,) * 2, (second,) * 2)],
    }
    runs = {each: Run(frames(), {}) for each in ('live', *names)}
    return Demonstration(folder, document, runs, {})


def test_the_page_has_the_figures_of_every_run(tmp_path: Path) -> None:
    page = render(demonstration(tmp_path, ('dense', 'small'), ('cone', 'box')), [])
    assert page.count('<svg role="img" aria-label=') == 5
    inference = 1.0 + PATH.index('inference')
    cell = f'<td>{inference:.1f} / {inference:.1f} / {inference:.1f}<small>'
    assert page.count(cell) >= 3
    assert '0.750 (0.700–0.800)' in page
    assert '2.00 G → 2.00 G' in page
    assert '2 of 122' in page  # each replay lost one of 61
    assert not re.search(r'(?:src|href)="(?!data:|#)|url\((?!#)|<script|<link', page)


def test_the_page_says_why_the_network_is_faster_than_the_frame(tmp_path: Path) -> None:
    made = demonstration(tmp_path, ('dense', 'small'), ('cone',))
    for section, network, whole in zip(made.replays, (20.0, 4.0), (26.0, 10.0), strict=True):
        section['latency_ms']['inference']['p50'] = network
        section['latency_ms']['e2e_receive']['p50'] = whole
    text = re.sub(r'\s+', ' ', render(made, []))
    assert 'two answers to' in text
    assert 'end to end, median: 2.6 times as fast' in text
    assert '<b>end to end</b> it is 2.6 times, though the <b>network</b> takes 5.0 times' in text
    made.document['models'][1]['engine_alone'] = {'p50_ms': 3.0, 'speedup': 7.5}
    text = re.sub(r'\s+', ' ', render(made, []))
    assert 'three answers to' in text
    assert 'it was 7.5 times when the models were made' in text


def test_the_summary_has_headings_and_what_is_not_known(tmp_path: Path) -> None:
    table = summary(demonstration(tmp_path, ('dense', 'small'), ('cone',)))
    assert [name for name, _ in table.columns] == ['', 'dense, live', 'dense', 'small']
    cells = {row[0]: row[1:] for row in table.cells()}
    assert cells['frames'] == []
    assert cells['recall, boxes under 48 px'] == ['0.250 of 7'] * 3
    assert cells['memory of the node, MiB'] == cells['precision'] == ['–'] * 3
    assert cells['CPU of the node, % of a core'] == ['20'] * 3


def test_names_cannot_break_page_plots_or_terminal(tmp_path: Path) -> None:
    made = demonstration(tmp_path, HOSTILE, HOSTILE)
    page = render(made, [])
    for text in ('<script', '<i>', '<cpu>', '<t>', '\x1b', '\u202e'):
        assert text not in re.sub('<i>inference</i>|<i>published</i>', '', page)
    assert html.escape(HOSTILE[0]) in page
    assert r'a$b$c &amp; [red]\x1b[2J\u202e' in page
    out = io.StringIO()
    Console(file=out, width=200).print(summary(made).to_rich())
    assert HOSTILE[0] in out.getvalue()
    assert r'a$b$c & [red]\x1b[2J\u202e' in out.getvalue()
