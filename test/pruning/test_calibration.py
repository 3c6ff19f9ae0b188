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

"""Calibration sets are checked and fingerprinted as they pass."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from pruned_perception.pruning import PruningError
from pruned_perception.pruning.calibration import CheckedBatches, fingerprint
from pruned_perception.pruning.records import CalibrationRecord, from_dict, to_dict

IMAGES = torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(0))
EXAMPLE = (IMAGES[:1],)


def record(batches: object, example: tuple[Tensor, ...] = EXAMPLE) -> CalibrationRecord:
    checked = CheckedBatches(batches, example)  # type: ignore[arg-type]
    assert sum(inputs[0].shape[0] for inputs in checked) == checked.record.images
    return checked.record


@pytest.mark.parametrize('size', [1, 5, 12])
def test_batch_sizes_make_no_difference(size: int) -> None:
    assert record(IMAGES.split(size)) == record([IMAGES])
    assert record(IMAGES.split(size)) == CalibrationRecord(12, fingerprint([IMAGES]))


@pytest.mark.parametrize('size', [1, 5, 12])
def test_batch_sizes_make_no_difference_with_two_inputs(size: int) -> None:
    pairs = list(zip(IMAGES.split(size), IMAGES[:, 0].split(size), strict=True))
    whole = [(IMAGES, IMAGES[:, 0])]
    assert record(pairs, (IMAGES, IMAGES[:, 0])) == record(whole, (IMAGES, IMAGES[:, 0]))
    assert fingerprint(pairs) == fingerprint(whole)


def test_other_images_and_another_order_have_another_fingerprint() -> None:
    changed = IMAGES.clone()
    changed[7, 1, 2, 3] += 1e-6
    assert len({fingerprint([each]) for each in (IMAGES, changed, IMAGES.flip(0))}) == 3


def test_memory_layout_makes_no_difference() -> None:
    assert fingerprint([IMAGES.contiguous(memory_format=torch.channels_last)]) == fingerprint(
        [IMAGES]
    )


def test_a_second_iteration_starts_again() -> None:
    checked = CheckedBatches([IMAGES], EXAMPLE)
    first = [list(checked), checked.record][1]
    list(checked)
    assert checked.record == first


def test_batches_without_images_are_passed_over() -> None:
    assert record([IMAGES[:0], IMAGES, IMAGES[:0]]) == record([IMAGES])


def test_record_survives_json() -> None:
    found = record([IMAGES])
    assert from_dict(CalibrationRecord, json.loads(json.dumps(to_dict(found)))) == found


def _with(value: float) -> Tensor:
    wrong = IMAGES.clone()
    wrong[3, 0, 0, 0] = value
    return wrong


@pytest.mark.parametrize(
    ('batches', 'message'),
    [
        ([], 'camera: empty; give at least one batch'),
        ([IMAGES[:0]], 'camera: empty'),
        ([IMAGES, IMAGES[:, :2]], r'batch 1 is torch.float32 \(12, 2, 4, 4\)'),
        ([IMAGES.double()], 'torch.float64'),
        ([torch.tensor(1.0)], 'all but the first dimension'),
        ([_with(float('nan'))], 'batch 0 has values that are NaN or infinite'),
        ([_with(float('inf'))], 'NaN or infinite'),
        ([(IMAGES, IMAGES)], 'has 2 inputs, the network takes 1'),
        ([(IMAGES, [1, 2])], 'leave labels out'),
        (['images'], 'must be a tensor or a tuple of tensors, got str'),
        ([{'image': IMAGES}], 'got dict'),
    ],
)
def test_unusable_sets_are_named(batches: list, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        list(CheckedBatches(batches, EXAMPLE, name='camera'))


def test_inputs_of_unequal_numbers_of_examples_are_refused() -> None:
    with pytest.raises(PruningError, match=r'\[\(4,\), \(12,\)\] examples'):
        list(CheckedBatches([(IMAGES, IMAGES[:4])], (IMAGES, IMAGES)))
