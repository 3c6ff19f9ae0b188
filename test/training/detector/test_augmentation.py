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

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from pruned_perception.pruning.errors import PruningError
from pruned_perception.training.detector.augmentation import (
    Batch,
    collate,
    draw_views,
    make_batch,
    random_colours,
    view_boxes,
)
from pruned_perception.training.detector.data import FrameSet
from pruned_perception.training.recipe import Phase


def _frames(boxes: list, crowd: list | None = None) -> FrameSet:
    """One dark frame in which every box is filled with white."""
    image = np.zeros((120, 160, 3), np.uint8)
    for left, top, right, bottom in boxes:
        image[top:bottom, left:right] = 255
    return FrameSet(
        images=image[None],
        boxes=[np.array(boxes, np.float32).reshape(-1, 4)],
        class_ids=[np.zeros(len(boxes), np.int64)],
        crowd=[np.array(crowd or [False] * len(boxes), bool)],
        groups=['0'],
        labels=('white',),
        digest='',
        notes=None,  # where the frames come from: augmentation does not ask
    )


def _batch(frames: FrameSet, *options) -> Batch:
    return make_batch(frames, draw_views(frames, *options))


@pytest.mark.parametrize('seed', range(12))
def test_boxes_move_with_the_pixels(seed: int) -> None:
    frames = _frames([[60, 40, 100, 80]])
    batch = _batch(frames, [0], Phase(1, (96, 128), (0.9, 1.4)), np.random.default_rng(seed))
    bright = batch.images[0].float().mean(0).numpy() > 127.5
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(batch.boxes[0, 0].numpy(), seen, atol=1.6)


@pytest.mark.parametrize('seed', range(6))
def test_a_mosaic_has_the_pixels_of_all_its_boxes_and_no_others(seed: int) -> None:
    frames = _frames([[60, 40, 100, 80]])
    phase = Phase(1, (96, 128), (0.6, 1.2), mosaic=1.0)
    batch = _batch(frames, [0], phase, np.random.default_rng(seed))
    picture = batch.images[0].float()
    bright = picture.mean(0).numpy() > 127.5
    covered = np.zeros_like(bright)
    boxes = batch.boxes[0][batch.valid[0] | batch.ignored[0]].round().int().tolist()
    assert len(boxes) >= 2
    for left, top, right, bottom in boxes:
        covered[top:bottom, left:right] = True
        assert bright[top + 2 : bottom - 2, left + 2 : right - 2].all()
    spread = cv2.dilate(covered.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    grey = picture.std(0).numpy() < 5  # what lies around a frame is grey, not bright
    assert not (bright & ~spread & ~grey).any()


def test_mosaics_are_drawn_only_where_they_are_asked_for() -> None:
    frames, generator = _frames([[60, 40, 100, 80]]), np.random.default_rng(0)
    plain = Phase(1, (64, 64), (1, 1))
    assert plain.to_dict().keys() == {'until', 'size', 'scale'}
    assert {len(each.parts) for each in draw_views(frames, [0] * 20, plain, generator)} == {1}
    some = Phase(1, (64, 64), (1, 1), mosaic=0.5)
    assert {len(each.parts) for each in draw_views(frames, [0] * 20, some, generator)} == {1, 4}


def test_colours_move_as_far_as_is_asked_for() -> None:
    def spread(strength: float) -> float:
        generator = np.random.default_rng(0)
        tables = [random_colours((8, 8), generator, strength).table for _ in range(100)]
        return float(np.abs(np.stack(tables) - np.arange(256.0)[:, None]).mean())

    assert Phase(1, (64, 64), (1, 1), colours=2.0).to_dict()['colours'] == 2
    assert spread(0) < 0.6  # rounding
    assert spread(0) < 0.2 * spread(1) < 0.16 * spread(2)
    with pytest.raises(PruningError, match='colours: must be in'):
        Phase(1, (64, 64), (1, 1), colours=9.0)


def test_views_differ_and_are_reproducible() -> None:
    frames = _frames([[60, 40, 100, 80]])

    def draw(seed: int) -> np.ndarray:
        return _batch(
            frames, [0, 0], Phase(1, (96, 128), (0.7, 1.4)), np.random.default_rng(seed)
        ).images.numpy()

    assert np.array_equal(draw(5), draw(5))
    assert not np.array_equal(draw(5)[0], draw(5)[1])


def test_boxes_cut_to_a_sliver_are_ignored_and_those_outside_vanish() -> None:
    matrix = np.array([[1.0, 0, -50], [0, 1.0, 0]])
    boxes = np.array([[0, 0, 60, 20], [60, 0, 90, 20], [0, 0, 40, 20]], np.float32)
    moved, seen, fair = view_boxes(boxes, matrix, (64, 64))
    assert seen.tolist() == [True, True, False]
    assert fair.tolist()[:2] == [False, True]
    assert moved[1].tolist() == [10, 0, 40, 20]


def test_crowd_boxes_are_ignored_not_asked_for() -> None:
    frames = _frames([[60, 40, 100, 80], [10, 10, 40, 40]], [True, False])
    batch = _batch(frames, [0], Phase(1, (120, 160), (1, 1)), np.random.default_rng(0))
    assert batch.valid[0].tolist() == [False, True]
    assert batch.ignored[0].tolist() == [True, False]


def test_frames_without_boxes_make_a_batch() -> None:
    batch = _batch(_frames([]), [0], Phase(1, (64, 64), (0.5, 2)), np.random.default_rng(0))
    assert batch.boxes.shape == (1, 1, 4)
    assert not batch.valid.any()
    assert not batch.ignored.any()


def test_images_are_bytes_with_channels_last() -> None:
    images = np.full((2, 32, 32, 3), 255, np.uint8)
    none = [np.zeros((0, 4), np.float32)] * 2
    batch = collate(images, none, [np.zeros(0, int)] * 2, [np.zeros(0, bool)] * 2)
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.images.max() == 255
    assert batch.images.stride()[1] == 1


def test_corruptions_come_as_often_as_is_asked_for() -> None:
    frames, generator = _frames([[60, 40, 100, 80]]), np.random.default_rng(0)
    plain = Phase(1, (64, 64), (1, 1))
    some = Phase(1, (64, 64), (1, 1), corrupted={'motion': 0.5, 'dark': 0.25})
    assert some.to_dict()['corrupted'] == {'motion': 0.5, 'dark': 0.25}
    views = draw_views(frames, [0] * 400, some, generator)
    drawn = Counter(each.corrupted and each.corrupted.name for each in views)
    assert 150 < drawn['motion'] < 250
    assert 60 < drawn['dark'] < 140
    assert {each.corrupted.severity for each in views if each.corrupted} == {1, 2, 3, 4, 5}
    assert not any(each.corrupted for each in draw_views(frames, [0] * 20, plain, generator))
    dark = [each for each in views if each.corrupted and each.corrupted.severity == 5]
    dark = [each for each in dark if each.corrupted and each.corrupted.name == 'dark']
    untouched = [replace(each, corrupted=None) for each in dark]
    light, little = (make_batch(frames, each).images.float().mean() for each in (untouched, dark))
    assert little < 0.25 * light
    # What else is random is drawn before: only the corruption tells the views apart.
    assert torch.equal(make_batch(frames, dark).boxes, make_batch(frames, untouched).boxes)


@pytest.mark.parametrize(
    ('shares', 'words'),
    [
        ({'rain': 0.1}, "corrupted: 'rain' is unknown; there are noise"),
        ({'dark': 1.5}, r'corrupted: dark: must be in \[0, 1\], got 1.5'),
        ({'dark': 0.6, 'motion': 0.6}, 'corrupted: the shares must sum to at most 1'),
    ],
)
def test_corruptions_that_cannot_be_are_refused(shares: dict[str, float], words: str) -> None:
    with pytest.raises(PruningError, match=words):
        Phase(1, (64, 64), (1, 1), corrupted=shares)
