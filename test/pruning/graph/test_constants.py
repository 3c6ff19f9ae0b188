import copy

import networks
import pytest
import torch
from torch import Tensor, nn

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.constants import FoldReport, fold_constants

INPUT = networks.INPUT


class _Chain(nn.Module):
    """Convolution, batch norm, ReLU, then a layer that reads it."""

    def __init__(self, reader: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.reader = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), reader
        self.after = nn.BatchNorm2d(6)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.after(self.reader(self.norm(self.first(x)).relu())))


def _chain(reader: nn.Module) -> _Chain:
    """Three channels are constant: 0.75, 2, and 0 behind the ReLU."""
    torch.manual_seed(0)
    model = _Chain(reader).eval()
    with torch.no_grad():
        model.norm.weight.normal_()
        model.norm.bias.normal_()
        model.norm.weight[[1, 4, 6]] = 0
        model.norm.bias[[1, 4, 6]] = torch.tensor([0.75, 2, -1])
    return model


def _deviation(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(networks.outputs(one), networks.outputs(other), strict=True)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def test_unpadded_convolution_takes_constants_into_its_bias() -> None:
    model = _chain(nn.Conv2d(8, 6, 3, bias=False))
    small, report = fold_constants(model, INPUT)
    assert report == FoldReport({'first': 8}, {'first': (1, 4, 6)}, {})
    expected = model.reader.weight.sum((2, 3))[:, [1, 4]] @ torch.tensor([0.75, 2])
    assert torch.allclose(small.reader.bias, expected, atol=1e-6)
    assert (small.first.out_channels, small.reader.in_channels) == (5, 5)
    assert _deviation(model, small) <= 1e-5


def test_padded_convolution_keeps_all_constants_but_zero() -> None:
    model = _chain(nn.Conv2d(8, 6, 3, padding=1))
    small, report = fold_constants(model, INPUT)
    assert report.folded == {'first': (6,)}
    assert report.kept == {
        'first': 'constant channels other than 0 are read by reader, which pads zeros'
    }
    assert _deviation(model, small) <= 1e-5
    # Were it forced, only the border would be wrong: this is why they are kept.
    forced = copy.deepcopy(model)
    with torch.no_grad():
        taken = forced.reader.weight[:, [1, 4]].sum((2, 3)) @ torch.tensor([0.75, 2])
        forced.reader.bias += taken
        forced.reader.weight[:, [1, 4]] = 0
        error = (model(*INPUT) - forced(*INPUT)).abs()
    assert error[..., 1:-1, 1:-1].max() <= 1e-5
    assert error.max() > 1e-2


def test_padding_that_repeats_the_border_is_no_obstacle() -> None:
    model = _chain(nn.Conv2d(8, 6, 3, padding=1, padding_mode='reflect'))
    small, report = fold_constants(model, INPUT)
    assert report.folded == {'first': (1, 4, 6)}
    assert _deviation(model, small) <= 1e-5


@pytest.mark.parametrize(('padding', 'folded'), [('valid', (1, 4, 6)), ('same', (6,))])
def test_padding_by_name_is_understood(padding: str, folded: tuple[int, ...]) -> None:
    model = _chain(nn.Conv2d(8, 6, 3, padding=padding))
    small, report = fold_constants(model, INPUT)
    assert report.folded == {'first': folded}
    assert _deviation(model, small) <= 1e-5


def test_transposed_convolution_keeps_all_constants_but_zero() -> None:
    model = _chain(nn.ConvTranspose2d(8, 6, 3, stride=2))
    small, report = fold_constants(model, INPUT)
    assert report.folded == {'first': (6,)}
    assert 'which is transposed' in report.kept['first']
    assert _deviation(model, small) <= 1e-5


def test_linear_layer_takes_a_constant_of_its_own_from_each_position() -> None:
    model = networks.build(networks.Flatten)
    with torch.no_grad():
        model.get_submodule('down.1').weight[:5] = 0
        model.get_submodule('down.1').bias[:5] = 1.5
    small, report = fold_constants(model, INPUT)
    assert report.folded == {'down.0': (0, 1, 2, 3, 4)}
    assert small.hidden.in_features == 27 * 16
    expected = model.hidden.bias + 1.5 * model.hidden.weight[:, : 5 * 16].sum(1)
    assert torch.allclose(small.hidden.bias, expected, atol=1e-5)
    assert _deviation(model, small) <= 1e-5


def test_zero_filters_are_constant_without_batch_norm() -> None:
    model = networks.build(networks.Transposed)
    with torch.no_grad():
        model.up.weight[:, [3, 40]] = 0
    small, report = fold_constants(model, INPUT)
    assert report.folded == {'up': (3, 40)}
    assert _deviation(model, small) <= 1e-5


def test_what_becomes_constant_by_folding_is_folded_too() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)
    ).eval()
    with torch.no_grad():
        model[0].weight[0] = 0
        model[0].bias[0] = 2
        model[2].weight[1] = torch.tensor([3.0, 0, 0, 0]).reshape(4, 1, 1)
    small, report = fold_constants(model, INPUT)
    assert report.folded == {'0': (0,), '2': (1,)}
    assert _deviation(model, small) <= 1e-5


def test_residual_stream_is_constant_only_where_all_its_terms_are() -> None:
    model = networks.build(networks.Residual)
    with torch.no_grad():
        for name, channels in (('stem.1', [0, 1, 2]), ('outer.1', [2, 3])):
            model.get_submodule(name).weight[channels] = 0
            model.get_submodule(name).bias[channels] = -1
    small, report = fold_constants(model, INPUT)
    assert report.folded == {'stem.0': (2,)}
    assert _deviation(model, small) <= 1e-5


def test_channels_that_are_only_never_active_are_not_touched() -> None:
    model = _chain(nn.Conv2d(8, 6, 3))
    with torch.no_grad():
        model.norm.weight[0] = 1e-3
        model.norm.bias[0] = -100  # no input in sight makes it positive, yet one could
    _, report = fold_constants(model, INPUT)
    assert 0 not in report.folded['first']


def test_layer_of_constants_keeps_a_channel() -> None:
    model = _chain(nn.Conv2d(8, 6, 3))
    with torch.no_grad():
        model.norm.weight.zero_()
    small, report = fold_constants(model, INPUT)
    assert report.folded == {'first': tuple(range(1, 8)), 'reader': tuple(range(1, 6))}
    assert (small.first.out_channels, small.head.in_channels) == (1, 1)
    assert _deviation(model, small) <= 1e-5


class _Hiding(nn.Module):
    """What is not a number compares as False: nothing seems to depend on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(torch.where(x > 0, x, 0.0))


def test_dependence_that_comparisons_hide_is_seen_on_numbers() -> None:
    _, report = fold_constants(networks.build(_Hiding), INPUT)
    assert report.folded == {}


@pytest.mark.parametrize(
    'kind',
    [
        networks.ChannelShuffle,
        networks.CspDetector,
        networks.DepthwiseMultiplier,
        networks.GroupNorm,
        networks.MobileNetV2,
        networks.PixelShuffle,
        networks.SharedHead,
        networks.SqueezeExcitation,
    ],
    ids=lambda kind: kind.__name__,
)
def test_folded_network_computes_the_same(kind: type[nn.Module]) -> None:
    model = networks.build(kind)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            channels = module.weight.shape[0]
            module.weight.data[: channels // 4] = 0
            module.weight.data[channels // 2 : channels // 2 + channels // 4] = 0
    before = copy.deepcopy(model.state_dict())
    small, report = fold_constants(model, INPUT)
    assert _deviation(model, small) <= 1e-5
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    if kind is not networks.DepthwiseMultiplier:  # its channels reach a transposed layer
        assert report.folded
        assert sum(each.numel() for each in small.parameters()) < sum(
            each.numel() for each in model.parameters()
        )


def test_network_without_constants_comes_back_as_a_copy() -> None:
    model = networks.build(networks.Residual).train()
    same, report = fold_constants(model, INPUT)
    assert same is not model
    assert same.training
    assert (report.folded, report.kept) == ({}, {})
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters()))  # noqa: B905


def test_integer_inputs_are_refused() -> None:
    model = networks.build(networks.Residual)
    with pytest.raises(PruningError, match='floating-point'):
        fold_constants(model, (torch.zeros(1, 3, 16, 16, dtype=torch.uint8),))


def test_report_is_a_table_and_survives_plain_data() -> None:
    _, report = fold_constants(_chain(nn.Conv2d(8, 6, 3, padding=1)), INPUT)
    assert FoldReport.from_dict(report.to_dict()) == report
    assert report.to_text().splitlines() == [
        'group  channels  folded',
        'first         8       1',
        'first  kept: constant channels other than 0 are read by reader, which pads zeros',
    ]
    with pytest.raises(PruningError, match='not a report'):
        FoldReport.from_dict({'folded': 3})
