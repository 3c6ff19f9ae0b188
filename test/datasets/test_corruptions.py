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

"""Corruptions: the same from a seed, shape and type kept, worse with each severity, or refused."""

from __future__ import annotations

import itertools
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pruned_perception.datasets import DataError
from pruned_perception.datasets.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    corrupt,
    uniform_noise,
)

NAMES = st.sampled_from(list(CORRUPTIONS))
SEEDS = st.integers(0, 2**31)
SHAPES = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)),
)
PICTURES = SHAPES.flatmap(lambda shape: arrays.arrays(np.uint8, shape))


def scene(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """Return boxes before a wall, as a camera sees them: smooth, with edges and a little grain."""
    rng = np.random.default_rng(seed)
    wall = np.linspace(*rng.uniform(60, 180, 2), height)[:, None, None]
    image = wall * rng.uniform(0.7, 1.1, 3) + np.zeros((height, width, 1))
    for _ in range(12):
        left, top = rng.integers(0, width - 12), rng.integers(0, height - 12)
        wide, high = rng.integers(10, 90, 2)
        image[top : top + high, left : left + wide] = rng.uniform(10, 220, 3)
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


@given(PICTURES, NAMES, st.sampled_from(SEVERITIES), SEEDS)
def test_shape_and_type_are_kept_of_grey_and_tiny_pictures_too(image, name, severity, seed) -> None:
    before = image.copy()
    damaged = corrupt(image, name, severity, seed)
    assert damaged.shape == image.shape
    assert damaged.dtype == np.uint8
    np.testing.assert_array_equal(image, before)


@given(PICTURES, NAMES, st.sampled_from(SEVERITIES), SEEDS)
def test_the_same_seed_gives_the_same_pixels(image, name, severity, seed) -> None:
    np.testing.assert_array_equal(
        corrupt(image, name, severity, (seed, 3)), corrupt(image, name, severity, (seed, 3))
    )


@pytest.mark.parametrize('name', ['noise', 'motion', 'dark', 'glare', 'fog'])
def test_other_pictures_have_other_accidents(name: str) -> None:
    image = scene(0)
    assert (corrupt(image, name, 3, (0, 1)) != corrupt(image, name, 3, (0, 2))).any()


@settings(max_examples=8)
@given(st.integers(0, 1000), NAMES, st.booleans())
def test_each_severity_is_worse_than_the_one_before(seed, name, grey) -> None:
    image = scene(seed)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if grey else image
    likeness = [cv2.PSNR(image, corrupt(image, name, each, seed)) for each in SEVERITIES]
    # JPEG's quality steps may differ by less than what a picture's own texture makes of them.
    slack = 0.5 if name == 'jpeg' else 0.0
    assert all(worse < better + slack for better, worse in itertools.pairwise(likeness))
    assert likeness[-1] < likeness[0] - 1
    assert likeness[0] < 100  # something is done at all: of equal pictures it is 361


@pytest.mark.parametrize('name', ['blur', 'motion'])
def test_a_blur_spreads_a_point_and_keeps_its_light(name: str) -> None:
    image = np.zeros((201, 640), np.uint8)
    image[90:111, 300:321] = 250
    for severity in SEVERITIES:
        blurred = corrupt(image, name, severity, 1)
        assert int(blurred.sum()) == pytest.approx(int(image.sum()), rel=0.01)
        columns = np.flatnonzero(blurred.any(axis=0))
        assert columns.mean() == pytest.approx(310, abs=0.6)  # objects stay where they are
    assert len(columns) > 30


def test_a_severity_looks_the_same_at_every_resolution() -> None:
    small = scene(3)
    large = cv2.resize(small, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    for name in ('blur', 'glare'):  # the only ones whose random part has no resolution
        again = cv2.resize(corrupt(large, name, 4, 5), (320, 240), interpolation=cv2.INTER_AREA)
        assert cv2.PSNR(again, corrupt(small, name, 4, 5)) > 30


def test_noise_has_the_variance_it_says() -> None:
    for brightness in (60, 120):
        image = np.full((300, 300), brightness, np.uint8)
        gain, sigma = CORRUPTIONS['noise'].levels[1]
        difference = corrupt(image, 'noise', 2).astype(float) - brightness
        assert difference.mean() == pytest.approx(0, abs=0.2)
        assert difference.var() == pytest.approx(gain * brightness + sigma**2, rel=0.05)


@given(PICTURES, st.floats(0, 255), SEEDS)
def test_uniform_noise_stays_within_its_level(image, level, seed) -> None:
    damaged = uniform_noise(image, level, seed)
    assert damaged.shape == image.shape
    assert (np.abs(damaged.astype(int) - image) <= np.ceil(level)).all()


@pytest.mark.parametrize('severity', [0, -1, 6, 2.5, True])
def test_severities_are_one_to_five(severity) -> None:
    with pytest.raises(DataError, match='severity'):
        corrupt(scene(0), 'fog', severity)


def test_severity_zero_is_the_picture_itself() -> None:
    with pytest.raises(DataError, match='0 is the picture itself'):
        corrupt(scene(0), 'fog', 0)


def test_an_unknown_corruption_is_answered_with_those_there_are() -> None:
    with pytest.raises(DataError, match="'snow' is unknown; there are noise, blur, motion, dark"):
        corrupt(scene(0), 'snow', 1)


@pytest.mark.parametrize('image', [np.zeros((4, 4), float), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture_is_refused(image) -> None:
    for damage in (lambda: corrupt(image, 'noise', 1), lambda: uniform_noise(image, 3)):
        with pytest.raises(DataError, match='a picture is uint8'):
            damage()


def test_neither_torch_nor_ros_is_needed() -> None:
    code = (
        'import sys, pruned_perception.datasets.corruptions; '
        "print({'torch', 'rclpy', 'onnxruntime'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == 'set()'
