import torch
from torch import nn

from pruned_perception.pruning import count, recalibrate


def test_multiply_accumulates_of_known_layers() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 8·8 positions · 8 · 3·9
        nn.Conv2d(8, 8, 3, padding=1, groups=8),  # 8·8 · 8 · 9
        nn.ConvTranspose2d(8, 4, 2, stride=2),  # 8·8 · 8 · 4·4
        nn.Flatten(),
        nn.Linear(4 * 16 * 16, 10),
    )
    cost = count(model, (torch.zeros(2, 3, 16, 16),))
    expected = [64 * 8 * 27, 64 * 8 * 9, 64 * 8 * 16, 1024 * 10]
    assert [layer.macs for layer in cost.layers] == expected
    assert cost.macs == sum(expected)


def test_a_layer_used_twice_counts_twice() -> None:
    layer = nn.Linear(4, 4)
    assert count(nn.Sequential(layer, nn.ReLU(), layer), (torch.zeros(1, 4),)).macs == 32


def test_recalibration_measures_the_statistics_again() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2)).eval()
    batches = [torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    shifted = [3 * batch + 5 for batch in batches]
    adjusted = recalibrate(model, shifted)
    norm = adjusted[0]
    assert isinstance(norm, nn.BatchNorm2d)
    torch.testing.assert_close(norm.running_mean, torch.cat(shifted).mean((0, 2, 3)))
    assert norm.momentum == 0.1
    assert not adjusted.training
    assert model[0].running_mean.eq(0).all(), 'the original was changed'
