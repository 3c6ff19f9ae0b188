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

import pytest
import tiny
import torch
from torch import nn

from pruned_perception.pruning import PruningError
from pruned_perception.training.detector.architecture import Architecture
from pruned_perception.training.detector.network import Detector, decode, distances, grid


def test_odd_sizes_pass_through_the_pyramid() -> None:
    model = Detector(tiny.ARCHITECTURE).eval()
    height, width = 100, 147  # 13×19, 7×10 and 4×5 cells: nothing divides
    with torch.no_grad():
        raw = model(torch.rand(1, 3, height, width))
    assert raw.shape == (1, 13 * 19 + 7 * 10 + 4 * 5, 4 + 3)
    assert len(grid(height, width)[0]) == raw.shape[1]


def test_cells_are_row_major_with_centres_in_the_middle() -> None:
    centres, strides = grid(16, 24)
    assert centres[:6].tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    assert strides.tolist() == [8] * 6 + [16] * 2 + [32]


def test_untrained_outputs_are_the_priors() -> None:
    torch.manual_seed(0)
    model = Detector(tiny.ARCHITECTURE).eval()
    _, strides = grid(*tiny.SIZE)
    with torch.no_grad():
        predictions = decode(model(torch.rand(1, 3, *tiny.SIZE)), strides)[0]
    assert predictions[:, 4:].mean().item() == pytest.approx(0.01, rel=0.5)
    assert (predictions[:, :4] / strides[:, None]).median().item() == pytest.approx(2, rel=0.2)


def test_distances_stay_finite() -> None:
    raw = torch.tensor([[[1e9, -1e9, 0.0, 0.0, 0.0]]])
    assert distances(raw, torch.tensor([8.0])).isfinite().all()


def test_architecture_is_read_from_the_modules() -> None:
    model = Detector(tiny.ARCHITECTURE)
    assert model.architecture == tiny.ARCHITECTURE
    first = model.get_submodule('backbone.0.0')
    first.conv = nn.Conv2d(3, 8, 3)
    assert model.architecture.backbone[0] == (8,)


def test_architecture_survives_plain_data() -> None:
    assert Architecture.from_dict(tiny.ARCHITECTURE.to_dict()) == tiny.ARCHITECTURE


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'neck': 0}, 'integer > 0'),
        ({'neck': 0.5}, r'field Architecture\.neck: must be an integer, got 0\.5'),
        ({'backbone': [[16], [16]]}, r'field Architecture\.backbone: expected'),
        ({'boxes': [[16]]}, r'field Architecture\.boxes: expected'),
        ({'colour': 3}, r'unknown field Architecture\.colour'),
    ],
)
def test_bad_architecture_names_the_field(change: dict, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        Architecture.from_dict(tiny.ARCHITECTURE.to_dict() | change)
