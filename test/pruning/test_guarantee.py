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

"""The guarantees, on layers of a trained network.

They hold where they are claimed, and are tight enough that too few draws break them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pytest
import torch
import trained
from torch import Tensor

from pruned_perception.pruning import allocate, estimate_sensitivity
from pruned_perception.pruning.bounds import sample_complexity
from pruned_perception.pruning.contributions import contributions, fields, kernel, sampled
from pruned_perception.pruning.selection import draw

DELTA = 0.1
EPSILON = 0.5
FUTURE = 20  # images that calibration has not seen
LAYERS = ('second', 'third', 'head')
READS = {'second': 'first', 'third': 'second', 'head': 'third'}
EACH = pytest.mark.parametrize('layer', LAYERS)
FORMS = pytest.mark.parametrize('definition', ['absolute', 'quadrants', 'summed'])


@functools.cache
def inputs(seed: int, images: int) -> dict[str, Tensor]:
    """Return what the layers read of images."""
    model, seen = trained.network(), {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _, read, __, name=name: seen.update({name: read[0]})
        )
        for name in LAYERS
    ]
    with torch.no_grad():
        for batch in trained.batches(images, seed, size=images):
            model(batch)
    for handle in handles:
        handle.remove()
    return seen


@dataclass(frozen=True)
class Part:
    """What is summed over channels (c, images, events), and what errors are relative to."""

    terms: Tensor
    scale: Tensor


def parts(layer: str, x: Tensor, definition: str) -> list[Part]:
    """Return what a definition's guarantee is about: outputs, their quadrants, or whole maps."""
    module = trained.network().get_submodule(layer)
    weight, read = kernel(module), fields(module, x)
    (field,) = sampled(read, weight, None, None)

    def part(a: Tensor, w: Tensor, absolute: Tensor | None = None) -> Part:
        (terms,) = contributions(a, w)
        terms = terms.double().reshape(len(terms), len(x), -1)
        return Part(terms, terms.sum(0) if absolute is None else absolute)

    if definition != 'quadrants':
        scale = part(field.abs(), weight.abs()).scale
        signed = part(field, weight, scale)
        if definition == 'absolute':
            return [signed]
        outputs = weight.shape[1]  # of whole maps: sums over positions
        return [
            Part(*(each.unflatten(-1, (-1, outputs)).sum(-2) for each in (signed.terms, scale)))
        ]
    found = [
        part(a.clamp(min=0), w.clamp(min=0)) for a in (field, -field) for w in (weight, -weight)
    ]
    return [each for each in found if each.scale.any()]


@dataclass(frozen=True)
class Setting:
    """One layer's claim about future images: its sensitivities, K, and the draws it needs."""

    values: Tensor
    K: float
    m: int
    parts: list[Part]


@functools.cache
def setting(layer: str, definition: str) -> Setting:
    measured = trained.sensitivity(definition, images=100)
    future = estimate_sensitivity(
        trained.network(),
        trained.batches(FUTURE, seed=77),
        example_inputs=trained.EXAMPLE,
        definition=definition,
        positions=None,
        structure=trained.structure(),
    )
    values, later = (each.values[READS[layer]] for each in (measured, future))
    # The least K with which these images fulfil the assumption, g_j ≤ K s_j.
    K = float((later / values).nan_to_num(0.0).max()) * (1 + 1e-6)
    (consumer,) = (each for each in measured.consumers if each.layer == layer)
    m = sample_complexity(
        EPSILON,
        float(values.sum()),
        consumer.events,
        delta=DELTA,
        K=K,
        signed=definition != 'quadrants',
    )
    return Setting(values, K, m, parts(layer, inputs(77, FUTURE)[layer], definition))


def violations(setting: Setting, m: int, draws: int) -> float:
    """Return how often the estimate of any event on one future image is off by more than ε."""
    p = setting.values / setting.values.sum()
    generator = torch.Generator().manual_seed(m)
    broken = 0
    for image in range(FUTURE):
        factors = torch.stack([draw(p, m, generator) for _ in range(draws)])
        wrong = torch.zeros(draws, dtype=torch.bool)
        for part in setting.parts:
            terms, scale = part.terms[:, image], part.scale[image]
            # What counts as zero in the measurement of sensitivities is not claimed.
            limit = EPSILON * scale + 1e-6 * scale.max()
            wrong |= ((factors @ terms - terms.sum(0)).abs() > limit).any(1)
        broken += int(wrong.sum())
    return broken / (draws * FUTURE)


def test_the_network_is_trained() -> None:
    assert trained.accuracy(trained.network()) > 0.9


@EACH
@FORMS
def test_estimates_are_unbiased(layer: str, definition: str) -> None:
    given = setting(layer, definition)
    p, draws, m = given.values / given.values.sum(), 1500, 20
    generator = torch.Generator().manual_seed(0)
    factors = torch.stack([draw(p, m, generator) for _ in range(draws)])
    for part in given.parts:
        terms = part.terms[:, 0]
        terms = terms[:, part.scale[0] > 1e-3 * part.scale[0].max()]
        found, wanted = factors @ terms, terms.sum(0)
        spread = found.std(0) / draws**0.5
        standardised = (found.mean(0) - wanted) / spread.clamp(min=1e-12)
        # Up to 2,048 outputs of the same draws: none far off, and not all to one side.
        assert standardised.abs().max() <= 5
        assert abs(float(standardised.median())) <= 3


@EACH
@FORMS
def test_errors_of_future_images_stay_within_the_bound(layer: str, definition: str) -> None:
    """|ẑ − z| ≤ ε V, or ε z^q in each quadrant, at all outputs and positions of an image."""
    given = setting(layer, definition)
    assert 0.7 < given.K < 3
    assert violations(given, given.m, draws=20) <= DELTA
    # It follows from the quadrants for V.
    if definition == 'quadrants':
        p = given.values / given.values.sum()
        (whole,) = parts(layer, inputs(77, FUTURE)[layer], 'absolute')
        factors = draw(p, given.m, torch.Generator().manual_seed(1))
        error = (torch.einsum('c,cne->ne', factors, whole.terms) - whole.terms.sum(0)).abs()
        assert (error <= EPSILON * whole.scale * (1 + 1e-5)).all()


@FORMS
def test_a_tenth_of_the_draws_breaks_the_bound(definition: str) -> None:
    """The test above has power: with A / 10, hence m / 10, it fails."""
    given = setting('head', definition)
    assert violations(given, given.m // 10, draws=60) > 1.3 * DELTA
    assert violations(given, given.m, draws=60) <= DELTA / 2, 'δ / 2 is for the assumption'


@EACH
@FORMS
def test_a_thirtieth_of_the_draws_breaks_it_in_every_layer(layer: str, definition: str) -> None:
    given = setting(layer, definition)
    assert violations(given, given.m // 30, draws=20) > DELTA


def pruned(values: Tensor, width: int) -> list[int]:
    """Return what deterministic selection prunes."""
    return values.argsort()[: len(values) - width].tolist()


@EACH
@pytest.mark.parametrize('definition', ['summed', 'absolute', 'quadrants'])
def test_what_deterministic_selection_loses_on_the_calibration_set_is_bounded_for_certain(
    layer: str, definition: str
) -> None:
    """At all widths: of summed maps by 'summed', at all outputs and positions by the others."""
    images, seed = 24, 5
    measured = estimate_sensitivity(
        trained.network(),
        trained.batches(images, seed),
        example_inputs=trained.EXAMPLE,
        definition=definition,
        positions=None,
        structure=trained.structure(),
    )
    values = measured.values[READS[layer]]
    (whole,) = parts(layer, inputs(seed, images)[layer], 'absolute')
    outputs = len(trained.network().get_submodule(layer).weight)
    tightest = 0.0
    for width in range(len(values)):
        plan = allocate(measured, widths={READS[layer]: max(1, width)}, delta=0.1)
        gone = pruned(values, width)
        if width:
            assert set(plan.kept[READS[layer]]) == set(range(len(values))) - set(gone)
            assert plan.errors[READS[layer]] == pytest.approx(float(values[gone].sum()))
        lost, scale = whole.terms[gone].sum(0).abs(), whole.scale
        if definition == 'summed':  # (images, positions, outputs)
            lost = lost.unflatten(1, (-1, outputs)).sum(1)
            scale = scale.unflatten(1, (-1, outputs)).sum(1)
        bound = float(values[gone].sum())
        assert (lost <= bound * scale + 2e-6 * scale.max()).all()
        tightest = max(tightest, float((lost / scale).nan_to_num(0.0).max()) / bound)
    assert 0.2 < tightest <= 1 + 1e-5, 'a bound far from what is lost proves little'


def test_bounds_measured_at_few_positions_may_be_exceeded() -> None:
    """An estimate from below: the certain bound is of all positions."""
    exact, few = (trained.sensitivity('absolute', positions=each) for each in (None, 1))
    x = inputs(10**7, 64)['second']
    (whole,) = parts('second', x, 'absolute')
    exceeded = {}
    for name, found in (('exact', exact), ('few', few)):
        values = found.values['first']
        exceeded[name] = 0
        for channel in range(len(values)):
            share = part_share(whole, channel)
            exceeded[name] += int((share > float(values[channel]) + 1e-5).sum())
    assert exceeded['exact'] == 0
    assert exceeded['few'] > 0


def part_share(whole: Part, channel: int) -> Tensor:
    """Return |u_j| / V of a channel at all events."""
    return (whole.terms[channel].abs() / whole.scale).nan_to_num(0.0)
