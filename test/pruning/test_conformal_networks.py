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

"""K of networks: how often new images exceed it, and what becomes of the bounds."""

from __future__ import annotations

import functools

import networks
import numpy as np
import pytest
import torch
import trained
from torch import Tensor, nn

from pruned_perception.pruning import Macs, PruningError, allocate, estimate_sensitivity
from pruned_perception.pruning.conformal import conformal_factor, largest_ratios
from pruned_perception.pruning.estimation import with_second_half
from pruned_perception.pruning.sensitivity import Sensitivity
from pruned_perception.pruning.tracing import trace

DELTA = 0.1
FIRST, SECOND, NEW = 100, 199, 301


def pictures(name: str) -> tuple[nn.Module, tuple[Tensor, ...], Tensor]:
    """Return a network, its example input, and images that are exchangeable."""
    if name == 'trained':
        images = torch.cat(list(trained.batches(FIRST + SECOND + NEW, seed=5)))
        return trained.network(), trained.EXAMPLE, images
    generator = torch.Generator().manual_seed(0)
    scale = torch.rand(FIRST + SECOND + NEW, 1, 1, 1, generator=generator)
    images = scale * torch.rand(FIRST + SECOND + NEW, 3, 16, 16, generator=generator)
    return networks.build(networks.Concatenation), networks.INPUT, images


@functools.cache
def single(name: str) -> np.ndarray:
    """Return (images, channels): the sensitivities of each image alone."""
    model, example, images = pictures(name)
    structure = trace(model, example)
    rows = [
        estimate_sensitivity(
            model, [image[None]], example_inputs=example, positions=None, structure=structure
        ).values
        for image in images
    ]
    return np.array([torch.cat(list(row.values())).numpy() for row in rows])


@pytest.mark.parametrize('name', ['trained', 'concatenation'])
def test_new_images_exceed_the_conformal_factor_rarely_and_one_nearly_always(name: str) -> None:
    g = single(name)
    generator = np.random.default_rng(0)
    shares, at_one, factors = [], [], []
    for _ in range(100):
        order = generator.permutation(len(g))
        s = g[order[:FIRST]].max(0)
        second = largest_ratios(g[order[FIRST : FIRST + SECOND]], s)
        new = largest_ratios(g[order[FIRST + SECOND :]], s)
        K = conformal_factor(second, DELTA)
        factors.append(K)
        shares.append((new > K).mean())
        at_one.append((new > 1).mean())
    assert np.mean(np.array(shares) <= DELTA) >= 0.95
    assert np.mean(shares) <= DELTA / 2 + 0.01
    assert np.mean(at_one) > DELTA  # K = 1 breaks what δ promises
    assert np.median(factors) > 1


def test_plans_take_the_factor_of_the_second_half() -> None:
    model, example, images = pictures('trained')
    first = estimate_sensitivity(model, [images[:100]], example_inputs=example, positions=None)
    found = with_second_half(first, model, images[100:259].split(50))
    assert len(found.ratios) == 159
    plan = allocate(found, Macs(0.6), selection='random', delta=DELTA)
    assumed = allocate(first, Macs(0.6), selection='random', delta=DELTA)
    assert conformal_factor(found.ratios, DELTA) == plan.K
    assert (plan.K_images, assumed.K_images, assumed.K) == (159, 0, 1.0)
    assert 'of 159 images of a second half' in plan.to_text().splitlines()[0]
    assert 'K = 1, assumed, not shown' in assumed.to_text().splitlines()[0]
    widened = [plan.errors[name] / assumed.errors[name] for name in plan.errors]
    assert all(1 < each <= plan.K for each in widened)
    assert plan.kept == assumed.kept  # K only scales
    assert Sensitivity.from_dict(found.to_dict()) == found


def test_what_the_second_half_cannot_carry_is_refused() -> None:
    model, example, images = pictures('trained')
    first = estimate_sensitivity(model, [images[:100]], example_inputs=example, positions=None)
    found = with_second_half(first, model, [images[100:110]])
    with pytest.raises(PruningError, match=r'δ = 0\.01 on 10 .* needs 199, or δ ≥ 0\.182'):
        allocate(found, Macs(0.6), selection='random', delta=0.01)
    sampled = estimate_sensitivity(model, [images[:100]], example_inputs=example)
    with pytest.raises(PruningError, match='--positions all'):
        with_second_half(sampled, model, [images[100:110]])
