"""Channels that are the same whatever the network sees, folded into the biases that follow.

A batch norm with weight 0, or a filter of zeros, makes a constant; behind a ReLU it often is not
zero, so that the channel cannot just be cut. A linear layer, or a convolution without zero padding,
adds the same multiple of it everywhere: its bias takes that over, and the channel goes. With zero
padding the border would be wrong (there the channel reads 0): only the constant 0 goes then. What
is done here is exact; channels that are merely almost constant are not touched.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.agreement import deviation, telling
from pruned_perception.pruning.graph.cost import LAYERS
from pruned_perception.pruning.graph.groups import ChannelGroup
from pruned_perception.pruning.surgery import find_groups, slice_channels

EXACT = 1e-5  # relative deviation that rounding may cause


@dataclass(frozen=True)
class FoldReport:
    """What was folded: for each group its channels before, and those that went; what was kept."""

    channels: dict[str, int]
    folded: dict[str, tuple[int, ...]]
    kept: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self) | {'folded': {name: list(each) for name, each in self.folded.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FoldReport:
        """Read what `to_dict` wrote."""
        try:
            folded = {name: tuple(each) for name, each in data['folded'].items()}
            return cls(dict(data['channels']), folded, dict(data['kept']))
        except (KeyError, TypeError, AttributeError) as error:
            raise PruningError(f'not a report of folded channels: {error}') from error

    def to_text(self) -> str:
        """Return a table: channels and folded channels of each group."""
        width = max(map(len, (*self.folded, *self.kept, 'group')))
        lines = [f'{"group":{width}}  channels  folded']
        lines += [
            f'{name:{width}}  {self.channels[name]:8d}  {len(each):6d}'
            for name, each in self.folded.items()
        ]
        lines += [f'{name:{width}}  kept: {why}' for name, why in self.kept.items()]
        return '\n'.join(lines)


@torch.no_grad()
def fold_constants(
    model: nn.Module, example_inputs: Sequence[Tensor]
) -> tuple[nn.Module, FoldReport]:
    """Return a copy of `model` without its constant channels, and what became of them.

    The copy computes the same in evaluation mode. What is constant is followed from zero weights
    on, not guessed from the example inputs. What becomes constant by folding is folded, too.

    Args:
        model: the network; untouched.
        example_inputs: its positional inputs, floating point.

    Raises:
        PruningError: a network that cannot be run or whose inputs are integers.
    """
    inputs = telling(example_inputs)
    if not all(each.is_floating_point() for each in inputs):
        raise PruningError('constants are found with floating-point inputs only')
    groups = first = find_groups(model, inputs)
    left = {group.name: list(range(group.channels)) for group in first.prunable}
    small = model
    reasons: dict[str, str] = {}
    while True:
        constants = _constants(small, inputs)
        kept: dict[str, list[int]] = {}
        for group in groups.prunable:
            gone, why = _foldable(small, group, constants)
            if why is not None:
                reasons[group.name] = why
            if gone:
                kept[group.name] = [i for i in range(group.channels) if i not in gone]
        if not kept:
            break
        folded = _fold(small, [groups[name] for name in kept], kept, constants)
        small = slice_channels(folded, inputs, kept)
        left |= {name: [left[name][index] for index in each] for name, each in kept.items()}
        groups = find_groups(small, inputs)
    lost = {
        group.name: tuple(sorted(set(range(group.channels)) - set(left[group.name])))
        for group in first.prunable
    }
    report = FoldReport(
        {group.name: group.channels for group in first.prunable if lost[group.name]},
        {name: each for name, each in lost.items() if each},
        reasons,
    )
    _check(model, small, inputs, report, {group.name: group for group in first.prunable})
    return small if report.folded else copy.deepcopy(model), report


def _constants(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return for each layer its inputs' constants (inputs,); nan where an input is none.

    The network is run on inputs that are not a number: whatever depends on them is not a number
    either. Filters and norms that are all zeros do not depend on them. A run on numbers has to
    agree: comparisons could hide what is not a number.
    """
    run = copy.deepcopy(model).eval()
    low: dict[str, Tensor] = {}
    high: dict[str, Tensor] = {}

    def record(name: str, layer: nn.Module) -> None:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            x = arguments[0]
            values = x.movedim(-1 if isinstance(layer, nn.Linear) else -3, 0).flatten(1)
            least, most = values.amin(1), values.amax(1)
            low[name] = torch.minimum(low.get(name, least), least)
            high[name] = torch.maximum(high.get(name, most), most)

        layer.register_forward_pre_hook(hook)

    for name, module in run.named_modules():
        if isinstance(module, LAYERS):
            record(name, module)
        if isinstance(module, (*LAYERS, _BatchNorm, _InstanceNorm, nn.GroupNorm)):
            _without_zero_products(module)
    try:
        run(*(torch.full_like(each, float('nan')) for each in inputs))
        run(*inputs)
    except Exception as error:  # whatever the user's forward raises
        raise PruningError(
            f'{type(model).__name__}: constants cannot be found, since it does not run on inputs '
            f'that are not a number: {error}'
        ) from error
    constants = {}
    for name, least in low.items():
        alike = high[name] - least <= 1e-6 * least.abs().clamp(min=1)
        zero = (least == 0) & (high[name] == 0)
        middle = torch.where(zero, 0.0, (least + high[name]) / 2)
        constants[name] = torch.where(alike, middle, float('nan'))
    return constants


def _without_zero_products(module: nn.Module) -> None:
    """Let channels whose weights are all zero give their bias, also of what is not a number."""
    weight, bias = module.weight, module.bias
    if not isinstance(weight, Tensor):  # a norm without
        return
    if isinstance(module, nn.ConvTranspose2d):  # (in, out / groups, …)
        split = weight.unflatten(0, (module.groups, -1))
        zero = (split == 0).movedim(2, 1).flatten(2).all(2).flatten()
    else:
        zero = (weight == 0).flatten(1).all(1) if weight.ndim > 1 else weight == 0
    axis = -1 if isinstance(module, nn.Linear) else -3

    def hook(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        channels = output.movedim(axis, -1)
        value = bias if isinstance(bias, Tensor) else torch.zeros_like(channels[..., :1])
        return torch.where(zero, value, channels).movedim(-1, axis)

    if zero.any():
        module.register_forward_hook(hook)


def _foldable(
    model: nn.Module, group: ChannelGroup, constants: Mapping[str, Tensor]
) -> tuple[set[int], str | None]:
    """Return the channels that can be folded, and why other constant ones cannot."""
    modules = dict(model.named_modules())
    gone: set[int] = set()
    reasons = []
    for start in range(0, group.channels, group.unit):
        run = set(range(start, start + group.unit))
        constant, why = True, None
        for part in group.consumers:
            layer = modules[part.layer]
            if getattr(layer, 'groups', 1) > 1:  # passes the channel on, to be read later
                continue
            values = constants[part.layer][part.of(run)]
            constant = constant and not bool(values.isnan().any())
            if values.any() and not _adds_the_same_everywhere(layer):
                what = 'is transposed' if isinstance(layer, nn.ConvTranspose2d) else 'pads zeros'
                why = f'constant channels other than 0 are read by {part.layer}, which {what}'
        if constant and why is None:
            gone |= run
        elif constant:
            reasons.append(why)
    if len(gone) == group.channels:  # a layer without channels cannot be run
        gone -= set(range(group.unit))
    return gone, reasons[0] if reasons else None


def _adds_the_same_everywhere(layer: nn.Module) -> bool:
    if type(layer) is not nn.Conv2d:
        return type(layer) is nn.Linear
    if layer.padding_mode != 'zeros':
        return True
    if layer.padding == 'same':
        return set(layer.kernel_size) == {1}
    return layer.padding == 'valid' or not any(layer.padding)


def _fold(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    kept: Mapping[str, Sequence[int]],
    constants: Mapping[str, Tensor],
) -> nn.Module:
    """Return a copy whose biases have what the channels that are not kept contribute."""
    folded = copy.deepcopy(model)
    modules = dict(folded.named_modules())
    for group in groups:
        gone = set(range(group.channels)) - set(kept[group.name])
        for part in group.consumers:
            layer = modules[part.layer]
            indices = part.of(gone)
            values = constants[part.layer][indices]
            if getattr(layer, 'groups', 1) > 1 or not values.any():
                continue
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            weight = layer.weight[:, indices].flatten(2).sum(2) if layer.weight.ndim > 2 else None
            more = (layer.weight[:, indices] if weight is None else weight) @ values
            if layer.bias is None:
                layer.bias = nn.Parameter(more, layer.weight.requires_grad)
            else:
                layer.bias += more
    return folded


def _check(
    model: nn.Module,
    small: nn.Module,
    inputs: Sequence[Tensor],
    report: FoldReport,
    groups: Mapping[str, ChannelGroup],
) -> None:
    gone: dict[str, list[int]] = {}
    for name, channels in report.folded.items():
        for producer in groups[name].producers:
            gone.setdefault(producer.layer, []).extend(producer.of(set(channels)))
    found, where = deviation(model, small, inputs, gone)
    if found > EXACT:
        raise PruningError(
            f'folding constant channels changes {where} by {found:.2g} of its range: the network '
            'hides what depends on its inputs; leave the constants where they are'
        )
