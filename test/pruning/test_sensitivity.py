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

"""Sensitivities against hand computations, and what is provable of them."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import networks
import pytest
import torch
import trained
from scipy.stats import spearmanr
from torch import Tensor, nn

from pruned_perception.pruning import (
    Macs,
    PruningError,
    Sensitivity,
    allocate,
    estimate_sensitivity,
    trace,
)
from pruned_perception.pruning import estimation as module
from pruned_perception.pruning.contributions import (
    Fields,
    contributions,
    fields,
    kernel,
    sampled,
)
from pruned_perception.pruning.sensitivity import DEFINITIONS

EACH = pytest.mark.parametrize('definition', DEFINITIONS)


class Reader(nn.Module):
    """A layer that hands its input on as it is, and one that reads it: a group of known values."""

    def __init__(self, weights: Sequence[Sequence[float]], *, columns: int | None = None) -> None:
        super().__init__()
        matrix = torch.tensor(weights)
        channels = matrix.shape[1] // (columns or 1)
        self.source = nn.Conv2d(channels, channels, 1, bias=False)
        self.source.weight.data = torch.eye(channels)[:, :, None, None]
        self.flatten = columns is not None
        if self.flatten:
            self.reader: nn.Module = nn.Linear(matrix.shape[1], len(matrix))
            self.reader.weight.data = matrix
        else:
            self.reader = nn.Conv2d(channels, len(matrix), 1)
            self.reader.weight.data = matrix[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        x = self.source(x)
        return self.reader(x.flatten(1) if self.flatten else x)


def image(*channels: Sequence[float]) -> Tensor:
    """Return one image of one row."""
    return torch.tensor(channels)[None, :, None, :]


def measure(
    model: nn.Module,
    batches: Sequence[Tensor],
    definition: str = 'absolute',
    positions: int | None = None,
) -> Sensitivity:
    return estimate_sensitivity(
        model, batches, example_inputs=batches[:1], definition=definition, positions=positions
    )


TWO_OUTPUTS = [[1.0, -2.0, 0.0], [3.0, 1.0, 1.0]]
TWO_POSITIONS = image([1.0, -1.0], [1.0, 2.0], [2.0, 0.0])


@pytest.mark.parametrize(
    ('definition', 'wanted'),
    [
        # v of output 0: 1, 2, 0 and 1, 4, 0; of output 1: 3, 1, 2 and 3, 2, 0.
        ('absolute', [3 / 5, 4 / 5, 1 / 3]),
        # Summed over both positions: 2, 6, 0 of 8; 6, 3, 2 of 11.
        ('summed', [6 / 11, 3 / 4, 2 / 11]),
        # Alone in a quadrant: channel 0 where w and a of output 0 are positive, channel 1 where w
        # is negative. All positive, output 1 has 3, 1, 2 of 6 at the first position.
        ('quadrants', [1.0, 1.0, 1 / 3]),
    ],
)
def test_one_image_as_by_hand(definition: str, wanted: list[float]) -> None:
    found = measure(Reader(TWO_OUTPUTS), [TWO_POSITIONS], definition)
    assert found.values['source'].tolist() == pytest.approx(wanted)
    (consumer,) = found.consumers
    assert consumer.total == pytest.approx(sum(wanted))
    assert consumer.events == 2 * 2 * (4 if definition == 'quadrants' else 1)
    assert found.events == consumer.events


@pytest.mark.parametrize(
    ('values', 'wanted'),
    [
        ((1.0, 3.0), [2 / 8, 6 / 8]),  # + +: w⁺ of both
        ((-1.0, -3.0), [2 / 8, 6 / 8]),  # w⁺ a⁻
        ((1.0, -3.0), [1.0, 1.0]),  # each alone in its quadrant
    ],
)
def test_signs_of_activations_divide_quadrants(values: tuple, wanted: list[float]) -> None:
    model = Reader([[2.0, 2.0]])
    inputs = [image(*([value] for value in values))]
    assert measure(model, inputs, 'quadrants').values['source'].tolist() == pytest.approx(wanted)
    by_absolutes = measure(model, inputs, 'absolute').values['source'].tolist()
    assert by_absolutes == pytest.approx([1 / 4, 3 / 4])


def test_quadrants_of_negative_weights_count_apart() -> None:
    model = Reader([[1.0, 3.0, -1.0, -4.0]])
    found = measure(model, [image([1.0], [1.0], [1.0], [1.0])], 'quadrants').values['source']
    assert found.tolist() == pytest.approx([1 / 4, 3 / 4, 1 / 5, 4 / 5])


@EACH
def test_the_largest_over_images_counts(definition: str) -> None:
    images = [image([1.0], [3.0]), image([3.0], [5.0]), image([0.0], [0.0])]
    found = measure(Reader([[1.0, 1.0]]), images, definition).values['source']
    assert found.tolist() == pytest.approx([3 / 8, 3 / 4]), 'of 1/4, 3/4 and 3/8, 5/8; 0/0 is 0'


@EACH
def test_what_is_never_there_or_never_read_has_none(definition: str) -> None:
    model = Reader([[1.0, 1.0, 1.0, 0.0]])
    found = measure(model, [image([2.0], [2.0], [0.0], [9.0])], definition).values['source']
    assert found.tolist() == pytest.approx([1 / 2, 1 / 2, 0, 0])


@EACH
def test_a_layer_that_is_never_active_has_none(definition: str) -> None:
    found = measure(Reader([[1.0, 1.0]]), [image([0.0, 0.0], [0.0, 0.0])], definition)
    assert found.values['source'].tolist() == [0.0, 0.0]


@EACH
def test_sums_too_small_to_divide_by_count_as_zero(definition: str) -> None:
    tiny = [image([1e-42], [3e-42])]
    assert measure(Reader([[1.0, 1.0]]), tiny, definition).values['source'].tolist() == [0.0, 0.0]


@EACH
def test_dark_images_count_as_much_beside_bright_ones(definition: str) -> None:
    bright, dark = image([1.0], [1.0]), image([1e-8], [3e-8])
    model = Reader([[1.0, 1.0]])
    wanted = [1 / 2, 3 / 4]
    for batches in ([bright, dark], [torch.cat((bright, dark))]):
        assert measure(model, batches, definition).values['source'].tolist() == pytest.approx(
            wanted
        )


@EACH
def test_outputs_that_vanish_beside_others_at_their_position_count_as_zero(
    definition: str,
) -> None:
    weights = [[1.0, 1.0], [1e-8, 3e-8]]
    found = measure(Reader(weights), [image([1.0], [1.0])], definition).values['source']
    assert found.tolist() == pytest.approx([1 / 2, 1 / 2])


@EACH
def test_outputs_of_one_input_pass_it_on_and_claim_nothing(definition: str) -> None:
    x = [image([1.0], [3.0])]
    mixed = measure(Reader([[1.0, 1.0], [0.0, 5.0]]), x, definition)
    assert mixed.values['source'].tolist() == pytest.approx([1 / 4, 3 / 4])
    assert mixed.events == (4 if definition == 'quadrants' else 1)
    # Nobody mixes: nothing is known of the channels, and each counts as indispensable.
    passed = measure(Reader([[2.0, 0.0], [0.0, 5.0]]), x, definition)
    assert passed.consumers == ()
    assert passed.values['source'].tolist() == [1.0, 1.0]


@EACH
def test_columns_of_a_flattened_channel_add_up_before_the_division(definition: str) -> None:
    model = Reader([[1.0, 1.0, 1.0, 1.0], [4.0, 0.0, 2.0, 0.0]], columns=2)
    found = measure(model, [image([1.0, 2.0], [3.0, 1.0])], definition).values['source']
    # 1 + 2 and 3 + 1 of 7; 4 and 6 of 10. Column by column channel 0 would have 0.4 + 2/7.
    assert found.tolist() == pytest.approx([3 / 7, 6 / 10])


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (nn.Conv2d(2, 2, 1, bias=False) for _ in range(2))
        self.reader = nn.Conv2d(4, 1, 1)
        self.left.weight.data = torch.eye(2)[:, :, None, None]
        self.right.weight.data = 2 * torch.eye(2)[:, :, None, None]
        self.reader.weight.data.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(torch.cat((self.left(x), self.right(x)), 1))


@EACH
def test_groups_side_by_side_share_one_sum(definition: str) -> None:
    found = measure(Concatenated(), [image([1.0], [3.0])], definition)
    assert found.values['left'].tolist() == pytest.approx([1 / 12, 3 / 12])
    assert found.values['right'].tolist() == pytest.approx([2 / 12, 6 / 12])
    # Drawn apart, each has a bound of its own on the one output.
    assert found.events == 2 * (4 if definition == 'quadrants' else 1)


@pytest.mark.parametrize('definition', ['absolute', 'summed'])
def test_channels_that_go_together_add_up_before_the_maximum(definition: str) -> None:
    model = networks.build(networks.GroupNorm)
    structure = trace(model, networks.INPUT)
    found = measure(model, networks.INPUT, definition).values['stem']
    unit = structure.groups['stem'].unit
    runs = found.unflatten(0, (-1, unit))
    assert unit == 4
    assert torch.equal(runs.amax(1), runs.amin(1)), 'one value for what goes together'
    layer = model.get_submodule('second')
    with torch.no_grad():
        x = model.get_submodule('norm')(model.get_submodule('stem')(*networks.INPUT)).relu()
        (field,) = sampled(fields(layer, x), kernel(layer), None, None)
        (v,) = contributions(field.abs(), kernel(layer).abs())
    if definition == 'summed':
        v = v.unflatten(1, (len(x), -1)).sum(2)
    shares = v.unflatten(0, (-1, unit)).sum(1) / v.sum(0)
    assert torch.allclose(runs.sum(1), shares.amax((1, 2)).double(), atol=1e-6)


def test_events_of_a_layer_on_several_levels_add_up() -> None:
    model = networks.build(networks.SharedHead)
    events = {each.layer: each.events for each in measure(model, networks.INPUT).consumers}
    # 16 × 16 and 8 × 8 positions.
    assert events['head'] == 5 * (256 + 64)
    assert events['down.0'] == 24 * 64
    for batch in (1, 2):  # whatever the batch
        again = measure(model, networks.INPUT[0].split(batch))
        assert {each.layer: each.events for each in again.consumers} == events


@EACH
def test_sums_are_between_one_and_the_number_of_channels(definition: str) -> None:
    for consumer in trained.sensitivity(definition).consumers:
        assert max(consumer.values) <= 1 + 1e-6
        assert 1 - 1e-6 <= consumer.total <= len(consumer.values)


def test_each_definition_is_below_the_next_finer_one() -> None:
    """Shares of sums lie below the largest share of the parts."""
    summed, absolute, quadrants = (
        torch.cat(list(trained.sensitivity(definition).values.values()))
        for definition in ('summed', 'absolute', 'quadrants')
    )
    assert (summed <= absolute + 1e-6).all()
    assert (absolute <= quadrants + 1e-6).all()
    assert (summed < absolute - 0.01).any()
    assert (absolute < quadrants - 0.01).any()


def test_after_pooling_the_absolute_form_is_the_summed_one() -> None:
    """A linear layer has one position."""
    summed, absolute = (
        trained.sensitivity(each).values['third'] for each in ('summed', 'absolute')
    )
    assert torch.allclose(summed, absolute, atol=1e-6)


@EACH
def test_batch_sizes_and_the_order_of_images_make_no_difference(definition: str) -> None:
    images = trained.examples(30, seed=5)[0]
    whole = measure(trained.network(), [images], definition)
    for batches in (images.split(1), images.split(7), images.flip(0).split(4)):
        other = measure(trained.network(), batches, definition)
        assert other.events == whole.events
        for name, values in whole.values.items():
            assert torch.allclose(other.values[name], values, atol=1e-5)


@pytest.mark.parametrize('definition', ['absolute', 'quadrants'])
def test_sampled_positions_estimate_from_below(definition: str) -> None:
    exact, few = trained.sensitivity(definition), trained.sensitivity(definition, positions=8)
    for name, values in few.values.items():
        assert (values <= exact.values[name] + 1e-6).all()
    assert (few.values['first'] < exact.values['first'] - 0.01).any()
    assert 'estimated from below' in few.to_text()
    assert 'exact' in exact.to_text()


def test_default_ranks_and_allocates_like_the_exact_sensitivity() -> None:
    images = {'images': 256, 'seed': 10**6}
    default = estimate_sensitivity(
        trained.network(), trained.batches(256, 10**6), example_inputs=trained.EXAMPLE
    )
    exact = trained.sensitivity('absolute', **images)
    few, all_positions = (
        torch.cat(list(each.values.values())).numpy() for each in (default, exact)
    )
    assert spearmanr(few, all_positions).statistic >= 0.95
    for share in (0.7, 0.5, 0.3):
        ours, wanted = (allocate(each, Macs(share)) for each in (default, exact))
        for name, width in wanted.widths.items():
            assert abs(ours.widths[name] - width) <= 0.1 * wanted.channels[name]


def test_cheap_layers_are_sampled_at_so_few_positions_that_the_cost_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At most a contribution to 16 of a layer's multiply-accumulates, but one position at least."""
    asked: dict[tuple[int, ...], int | None] = {}
    real = module.sampled

    def noting(found: Fields, weight: Tensor, count: int | None, generator: torch.Generator) -> Any:
        asked[tuple(weight.shape[1:])] = count
        return real(found, weight, count, generator)

    monkeypatch.setattr(module, 'sampled', noting)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(),
        nn.Conv2d(8, 9, 3, padding=1), nn.ReLU(),  # 64 positions, 9 taps: all 8
        nn.Conv2d(9, 10, 1), nn.ReLU(),            # 64 positions, one tap: 4
        nn.MaxPool2d(4), nn.Conv2d(10, 11, 2), nn.Flatten(), nn.Linear(11, 12),
    )  # fmt: skip
    images = [torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))]
    estimate_sensitivity(model, images, example_inputs=(images[0][:1],))
    assert asked == {(9, 8, 9): 8, (10, 9, 1): 4, (11, 10, 4): 1, (12, 11, 1): 1}
    asked.clear()
    estimate_sensitivity(model, images, example_inputs=(images[0][:1],), positions=None)
    assert set(asked.values()) == {None}


def test_one_batch_at_a_time_is_in_memory() -> None:
    alive: list[weakref.ref] = []

    def stream() -> Iterator[Tensor]:
        for seed in range(6):
            gc.collect()
            # The one before is the loop's own still, when it asks for the next.
            assert sum(each() is not None for each in alive) <= 1
            batch = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
            alive.append(weakref.ref(batch))
            yield batch
            del batch

    found = estimate_sensitivity(trained.network(), stream(), example_inputs=trained.EXAMPLE)
    assert found.calibration.images == 24
    gc.collect()
    assert not any(each() is not None for each in alive)


@EACH
def test_training_mode_changes_nothing_and_is_restored(definition: str) -> None:
    model = networks.build(networks.Residual)
    wanted = measure(model, networks.INPUT, definition)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    model.get_submodule('inner').eval()
    assert measure(model, networks.INPUT, definition) == wanted
    assert [model.training, model.inner.training, model.outer.training] == [True, False, True]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_hooks_are_gone_even_after_an_error() -> None:
    model = networks.build(networks.Residual)
    with pytest.raises(PruningError, match='NaN'):
        measure(model, [torch.full_like(networks.INPUT[0], torch.nan)])
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'definition': 'magic'}, "unknown sensitivity 'magic'; there are quadrants, absolute"),
        ({'positions': 0}, 'at least 1 per image, got 0'),
        ({'calibration': []}, 'calibration set: empty'),
        ({'calibration': [torch.zeros(2, 3, 8, 8)]}, r'\(2, 3, 8, 8\)'),
    ],
)
def test_bad_wishes_are_named(options: dict, message: str) -> None:
    arguments = {'calibration': trained.batches(4, 0), 'structure': trained.structure()} | options
    with pytest.raises(PruningError, match=message):
        estimate_sensitivity(trained.network(), example_inputs=trained.EXAMPLE, **arguments)


@pytest.mark.parametrize('positions', [None, 3])
def test_sensitivities_survive_json_to_the_last_digit(positions: int | None) -> None:
    found = trained.sensitivity('absolute', positions=positions)
    assert Sensitivity.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_other_data_is_no_sensitivity() -> None:
    with pytest.raises(PruningError, match=r'field Sensitivity\.\w+ is missing'):
        Sensitivity.from_dict({'definition': 'absolute'})


def test_table_says_how_compressible_each_consumer_is() -> None:
    found = trained.sensitivity('summed')
    lines = found.to_text().splitlines()
    assert lines[0] == 'summed sensitivity, 64 images, all positions (exact)'
    (head,) = (line for line in lines if line.startswith('head'))
    total = found.consumers[-1].total
    assert head.split()[1:5] == ['third', '32', f'{total:.2f}', f'{total / 32:.2f}']


def test_table_says_how_far_so_few_images_can_be_trusted() -> None:
    few = trained.sensitivity('absolute', images=3)
    channels = sum(len(each.values) for each in few.consumers)
    last = few.to_text().splitlines()[-1]
    assert f'at most {channels / 4:.3g} of {channels} channels' in last


def test_of_sampled_positions_nothing_is_said_of_the_next_image() -> None:
    found = estimate_sensitivity(
        trained.network(), trained.batches(8, 0), example_inputs=trained.EXAMPLE
    )
    assert 'nothing is said' in found.to_text().splitlines()[-1]


def test_next_image_exceeds_no_more_channels_than_the_table_says() -> None:
    exceeded, promised = [], []
    for seed in range(20):
        few = trained.sensitivity('absolute', images=7, seed=seed)
        following = trained.sensitivity('absolute', images=1, seed=1000 + seed)
        exceeded.append(
            sum(
                int((torch.tensor(new.values) > torch.tensor(old.values)).sum())
                for new, old in zip(following.consumers, few.consumers, strict=True)
            )
        )
        promised.append(sum(len(each.values) for each in few.consumers) / 8)
    # Draws are of whole images: the mean over 20 of them scatters, here by some 10 %.
    assert 0 < sum(exceeded) <= 1.3 * sum(promised)
