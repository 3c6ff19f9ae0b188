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

"""The choice of layers that stay in float, on errors that are known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

pytest.importorskip('onnx')

from pruned_perception.quantization.qdq import Layer
from pruned_perception.quantization.sensitivity import choose

ERRORS = {'a': 0.3, 'b': 0.01, 'c': 0.1, 'd': 0.02}
LAYERS = [Layer(name, (name,), 100) for name in ERRORS]


def error_of(names: Sequence[str]) -> float:
    return sum(ERRORS[name] ** 2 for name in names) ** 0.5


def test_what_errs_most_for_its_arithmetic_stays_in_float() -> None:
    found = choose(LAYERS, error_of, share=0.6)
    assert set(found.in_float) == {'a', 'c'}
    assert found.error == pytest.approx(error_of('bd'))


def test_no_more_than_the_share_stays_in_float() -> None:
    assert choose(LAYERS, error_of, share=0.3).in_float == ('a',)
    assert choose(LAYERS, error_of, share=0).in_float == ()


def test_a_layer_beyond_the_share_does_not_keep_smaller_ones_out() -> None:
    layers = [Layer('a', ('a',), 10_000), *LAYERS[1:]]

    def measured(names: Sequence[str]) -> float:
        return 2.0 if list(names) == ['a'] else error_of([each for each in names if each != 'a'])

    assert choose(layers, measured, share=0.05).in_float[0] == 'c'


def test_the_fewest_layers_that_keep_the_error_are_taken() -> None:
    assert choose(LAYERS, error_of, share=1, max_error=0.12).in_float == ('a',)
    assert choose(LAYERS, error_of, share=1, max_error=1).in_float == ()


def test_layers_that_do_not_help_stay_in_8_bits() -> None:
    found = choose(LAYERS, lambda names: 0.1, share=1)
    assert found.in_float == ()
