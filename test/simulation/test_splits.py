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

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruned_perception.errors import UserError
from pruned_perception.simulation import textures
from pruned_perception.simulation.scene import Texture
from pruned_perception.simulation.splits import BANDS, SPLITS, split_named


def test_every_band_belongs_to_exactly_one_split() -> None:
    owned = sorted(itertools.chain.from_iterable(split.bands for split in SPLITS.values()))
    assert owned == list(range(BANDS))


@given(st.integers(0, 2**31), st.sampled_from(sorted(SPLITS)))
def test_a_split_draws_from_its_own_bands_only(seed: int, name: str) -> None:
    split = SPLITS[name]
    rng = split.rng(seed)
    values = np.array([split.uniform(rng, 10.0, 34.0) for _ in range(50)])
    assert set(np.floor(values - 10.0).astype(int)) <= set(split.bands)


def test_a_split_reaches_all_of_its_bands() -> None:
    split = SPLITS['train']
    rng = split.rng(0)
    values = [split.uniform(rng, 0.0, BANDS) for _ in range(2000)]
    assert set(np.floor(values).astype(int)) == set(split.bands)


def test_streams_differ_between_splits_seeds_and_layouts() -> None:
    paths = [('train', 1, 0), ('test', 1, 0), ('train', 2, 0), ('train', 1, 1)]
    draws = {SPLITS[name].rng(*path).random() for name, *path in paths}
    assert len(draws) == len(paths)
    assert SPLITS['train'].rng(1, 0).random() == SPLITS['train'].rng(1, 0).random()


def test_an_unknown_split_is_refused_with_the_choices() -> None:
    with pytest.raises(UserError, match=r"'trian' is unknown.*train, validation, test"):
        split_named('trian')


def test_texture_generators_belong_to_one_split_each() -> None:
    groups = [set(group) for group in textures.PATTERNS.values()]
    functions = [set(group.values()) for group in textures.PATTERNS.values()]
    for one, other in itertools.combinations(range(len(groups)), 2):
        assert not groups[one] & groups[other]
        assert not functions[one] & functions[other]
    assert set(textures.PATTERNS) == set(SPLITS)


PATTERNS = sorted(itertools.chain.from_iterable(textures.PATTERNS.values()))


@pytest.mark.parametrize('pattern', PATTERNS)
def test_textures_mix_their_two_colours_and_repeat_from_the_seed(pattern: str) -> None:
    texture = Texture(pattern, ((1.0, 0.0, 0.5), (0.0, 1.0, 0.5)), seed=5, half_period=1.0)
    image = textures.paint(texture)
    assert image.shape == (textures.SIZE, textures.SIZE, 3)
    assert np.array_equal(image, textures.paint(texture))
    assert (np.abs(image[..., 0].astype(int) + image[..., 1] - 255) <= 1).all()
    assert (np.abs(image[..., 2].astype(int) - 128) <= 1).all()
    assert image[..., 0].std() > 2
    other = textures.paint(Texture(pattern, texture.colors, seed=6, half_period=1.0))
    assert not np.array_equal(image, other)


def test_smooth_textures_repeat_without_a_seam() -> None:
    image = textures.paint(Texture('concrete', ((0, 0, 0), (1, 1, 1)), seed=1, half_period=1.0))
    values = image[..., 0].astype(float)
    inside = np.abs(np.diff(values, axis=0)).mean()
    assert np.abs(values[0] - values[-1]).mean() < 3 * inside
