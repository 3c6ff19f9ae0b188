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

from pruned_perception.pruning import Macs, PruningError, prune
from pruned_perception.training.detector.architecture import Architecture, Bottleneck
from pruned_perception.training.detector.network import Detector, decode, distances, grid

INVERTED = {'kernel': 5, 'hidden': 48, 'width': 24}


def _inverted(**change: object) -> dict:
    """Return a backbone with an inverted residual at stride 4."""
    return {'backbone': [[16], [INVERTED | change], [32], [32], [32]]}


def _mobile() -> Architecture:
    """Inverted residuals, one of each kind, and a level of stride 4."""
    stem = {'kernel': 3, 'hidden': 16, 'width': 16, 'expand': False}
    again = INVERTED | {'residual': True}
    changes = {
        'backbone': [[16, stem], [INVERTED, again], [32], [INVERTED, again], [32]],
        'boxes': [[32]] * 4,
        'classes': [[32]] * 4,
        'activation': 'relu6',
    }
    return Architecture.from_dict(tiny.ARCHITECTURE.to_dict() | changes)


def test_inverted_residuals_and_a_fourth_level() -> None:
    architecture = _mobile()
    model = Detector(architecture).eval()
    assert model.architecture == architecture
    assert Architecture.from_dict(architecture.to_dict()) == architecture
    height, width = 100, 147
    with torch.no_grad():
        raw = model(torch.rand(1, 3, height, width))
    cells, strides = grid(height, width, model.strides)
    assert raw.shape == (1, len(cells), 4 + 3)
    assert sorted(set(strides.tolist())) == [4, 8, 16, 32]


def test_pruned_inverted_residuals_are_built_again_from_their_widths() -> None:
    torch.manual_seed(0)
    model = Detector(_mobile()).eval()
    images = torch.rand(4, 3, *tiny.SIZE)
    pruned, *_ = prune(
        model, (images[:1],), Macs(0.5), [images], tuned=True, criterion='filter_l2', round_to=4
    )
    assert isinstance(pruned, Detector)
    again = Detector(pruned.architecture).eval()
    again.load_state_dict(pruned.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again(images), pruned(images))
    hidden = [
        each.hidden
        for stage in pruned.architecture.backbone
        for each in stage
        if isinstance(each, Bottleneck)
    ]
    assert min(hidden) < 48


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
        ({'classes': [[16]] * 4}, r'field Architecture\.classes: expected'),
        ({'activation': 'gelu'}, r'field Architecture\.activation: must be one of'),
        (_inverted(kernel=4), r'backbone.*kernel: must be an odd integer'),
        (_inverted(residual=True), r'backbone\[1\]\[0\]\.residual: 16 channels cannot'),
        (_inverted(hidden=17, expand=False), r'without `expand`, must be what comes in, 16'),
        ({'backbone': [[INVERTED], [16], [16], [16], [16]]}, 'must be a convolution'),
        ({'colour': 3}, r'unknown field Architecture\.colour'),
    ],
)
def test_bad_architecture_names_the_field(change: dict, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        Architecture.from_dict(tiny.ARCHITECTURE.to_dict() | change)
