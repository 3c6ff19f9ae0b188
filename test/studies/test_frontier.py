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

"""The frontier: who dominates whom, how wide the steps are, and the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studies import frontier
from studies.frontier import FLOAT, INT8, OTHERS, Point, as_text, draw, of_results, steps


def results() -> dict[str, Any]:
    """Return a results file: b is worse than its faster b-int8; a public one knows one class."""
    rows = {
        'a': (FLOAT, 8.0, 0.9),
        'b': (FLOAT, 4.0, 0.7),
        'b-int8': (INT8, 3.0, 0.8),
        'c-int8': (INT8, 2.9, 0.5),
        'public': (OTHERS, 5.0, None),
    }
    accuracy, networks = {}, {}
    for name, (kind, ms, ap50) in rows.items():
        classes = {'chair': 0.4} if ap50 is None else {'chair': ap50, 'cone': ap50}
        interval = None if ap50 is None else [ap50 - 0.1, ap50 + 0.1]
        accuracy[name] = {
            'kind': kind, 'sha256': name, 'ap50': ap50, 'interval': interval, 'per_class': classes,
        }  # fmt: skip
        networks[name] = {'ms': ms, 'interval': [0.95 * ms, 1.05 * ms], 'speedup': 8.0 / ms}
    conditions = {'processor': 'a processor', 'load_average': 0.0, 'clock': 'wall'}
    return {'accuracy': accuracy, 'latency': {**conditions, 'networks': networks}}


def test_classes_that_all_know_are_compared_with_the_public_ones() -> None:
    points = {each.name: each for each in of_results(results())}
    assert frontier.common_classes(results()) == ['chair']
    assert points['public'].ap50 is None
    assert points['public'].common == pytest.approx(0.4)
    assert points['a'].common == pytest.approx(0.9)


def test_dominated_ones_are_named_with_what_dominates_them() -> None:
    text = as_text(results(), of_results(results()))
    assert 'b is dominated by b-int8: AP50 0.700 in 4.00 ms, 0.800 in 3.00 ms' in text.splitlines()
    assert text.count('is dominated by') == 1
    assert 'on the frontier: a, b-int8, c-int8' in text
    assert 'in float, members that none dominates' in text
    assert text.splitlines()[-2].endswith('2: a, b')  # none in float dominates b
    assert text.splitlines()[-1].endswith('2: a, b-int8')


def test_one_does_not_dominate_its_equal() -> None:
    first = Point('x', FLOAT, 1.0, (1.0, 1.0), 1.0, 0.5, None, 0.5)
    assert not first.dominates(first)


def test_steps_are_wide_and_intervals_apart() -> None:
    points = [each for each in of_results(results()) if each.kind != OTHERS]
    assert steps(points) == ['a', 'b', 'b-int8']  # c-int8 is not 1.25 times as fast as b-int8
    vague = [each for each in points if each.name in 'ab']
    wide = Point('w', FLOAT, 3.0, (2.0, 7.9), 1.0, 0.5, None, 0.5)
    assert steps([vague[0], wide]) == ['a']


@pytest.mark.parametrize('suffix', ['.svg', '.png'])
def test_the_picture_is_the_same_each_time(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip('matplotlib', reason="plots need matplotlib: extra 'bench'")
    files = [tmp_path / f'{number}{suffix}' for number in range(2)]
    for file in files:
        draw(of_results(results()), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].stat().st_size > 5000
