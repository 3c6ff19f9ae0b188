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

"""Outcomes image by image: what is written is what is read, and small."""

from __future__ import annotations

import doctest
import json

import numpy as np
import pytest
from torch import nn

from pruned_perception.pruning import PruningError
from pruned_perception.training import outcomes
from pruned_perception.training.outcomes import Figures, Outcomes, share_right
from pruned_perception.training.task import figures_of

RIGHT = np.random.default_rng(0).random(10_000) < 0.9


def test_examples_in_the_documentation_hold() -> None:
    assert doctest.testmod(outcomes).failed == 0


@pytest.mark.parametrize(
    'values',
    [
        100.0 * RIGHT,
        np.zeros(9),
        np.full(9, 100.0),
        np.linspace(-1, 2, 13).astype('f4').astype(float),
    ],
)
def test_outcomes_survive_their_file(values: np.ndarray) -> None:
    kept = Outcomes.from_dict(json.loads(json.dumps(Outcomes.of(values).to_dict())))
    assert kept.values.tolist() == values.tolist()


def test_ten_thousand_images_take_a_kilobyte_and_a_half() -> None:
    assert len(json.dumps(Outcomes.of(100.0 * RIGHT).to_dict())) < 1700


@pytest.mark.parametrize('cut', [slice(0, 40), slice(0, 0)])
def test_damaged_outcomes_are_named(cut: slice) -> None:
    data = Outcomes.of(100.0 * RIGHT).to_dict()
    bad = Outcomes.from_dict({**data, 'data': data['data'][cut]})
    with pytest.raises(PruningError, match='outcomes of 10000 images are damaged'):
        _ = bad.values
    with pytest.raises(PruningError, match='damaged'):
        _ = Outcomes.from_dict({**data, 'images': 20_000}).values


def test_the_mean_of_the_outcomes_is_the_first_figure() -> None:
    assert share_right(RIGHT)['accuracy'] == pytest.approx(100 * RIGHT.mean())
    with pytest.raises(PruningError, match=r'first figure, 0\.5'):
        Figures({'accuracy': 0.5}, [1.0, 1.0])
    with pytest.raises(PruningError, match='must be one number an image'):
        Figures({'accuracy': 1.0}, [[1.0, 1.0]])


def test_figures_pass_with_their_outcomes_and_without() -> None:
    network = nn.Flatten()
    assert figures_of(lambda _: share_right([True, False]), network).outcomes.tolist() == [100, 0]
    assert figures_of(lambda _: {'accuracy': 0.5}, network).outcomes is None
