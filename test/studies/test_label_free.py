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

"""Whether pruning will pay is foretold rightly of all networks that were measured."""

from __future__ import annotations

import json

import pytest

pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")

from pruned_perception.training.label_free.prediction import MENDABLE
from studies.label_free import RESULTS

BACK = 0.845
"""Of the parent's AP50, from which on it counts as brought back."""


def test_the_forecast_sorts_what_came_back_from_what_did_not() -> None:
    lines = [json.loads(each) for each in RESULTS.read_text('utf-8').splitlines()]
    parents = {each['study']: each['ap50'] for each in lines if 'stages' not in each}
    known: dict[bool, set[str]] = {True: set(), False: set()}
    for each in lines:
        stages = each.get('stages', [])
        control = json.loads(each['change']).get('fresh') or json.loads(each['change']).get('raw')
        if len(stages) != 1 or stages[0]['taught'] is None or control:
            continue
        if (left := stages[0]['refitted'].get('ap50')) is None:  # before it was measured
            continue
        came_back = each['ap50'] >= BACK * parents[each['study']]
        assert came_back == (left >= MENDABLE), each
        known[came_back].add(each['study'])
    assert known[True] >= {'warehouse', 'yolox', 'nanodet', 'fastestdet'}
    assert known[False] >= {'yolox', 'coco'}
