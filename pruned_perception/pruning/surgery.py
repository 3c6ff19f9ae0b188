"""Cutting channels out of a network: the one module that knows Torch-Pruning.

Torch-Pruning (Fang et al., DepGraph, CVPR 2023) finds the coupled channels and slices the tensors.
What is cut, and how much, is decided elsewhere. Its traps are met here: it traces with autograd,
so that frozen parameters are thawed first; outputs of the network are never offered for pruning;
and `Group.prune(idxs=…)` is not used (it records its history twice).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.errors import UserError
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.groups import ChannelGroup, ChannelGroups, Slice

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def find_groups(
    model: nn.Module, example_inputs: Sequence[Tensor], *, keep: Collection[str] = ()
) -> ChannelGroups:
    """Return the groups of coupled channels of `model`, which is left untouched.

    Args:
        model: any module that autograd can trace.
        example_inputs: its positional inputs; tracing runs it once.
        keep: names of layers whose outputs must stay.

    Raises:
        PruningError: the model cannot be traced, or a name in `keep` is no layer of it.
    """
    layers = {name for name, module in model.named_modules() if isinstance(module, LAYERS)}
    if unknown := set(keep) - layers:
        raise PruningError(f'keep: {sorted(unknown)[0]!r} is no convolution or linear layer')
    traced = _copy(model)
    graph = _graph(traced, example_inputs)
    names = {module: name for name, module in traced.named_modules()}
    prunable: list[ChannelGroup] = []
    kept: dict[str, str] = {}
    seen: set[str] = set()
    for layer in traced.modules():  # in the order of definition, which names the groups
        if not isinstance(layer, LAYERS) or names[layer] in seen or layer not in graph.module2node:
            continue
        cut = graph.get_pruner_of_module(layer)
        every = list(range(cut.get_out_channels(layer)))
        group = graph.get_pruning_group(layer, cut.prune_out_channels, every)
        found = _channel_group(group, graph, names)
        seen |= {each.layer for each in found.producers}
        reason = _reason_to_keep(found, traced, keep)
        if reason is None:
            prunable.append(found)
        else:
            kept |= {each.layer: reason for each in found.producers}
    for name in layers - seen:
        kept[name] = 'not reached by the tracing'
    return ChannelGroups(tuple(prunable), kept)


def slice_channels(
    model: nn.Module, example_inputs: Sequence[Tensor], kept: Mapping[str, Sequence[int]]
) -> nn.Module:
    """Return a copy of `model` in which each named group has its `kept` channels only.

    Groups that are not named stay whole; the original is untouched. The copy has the training
    mode and the frozen parameters of the original.

    Raises:
        PruningError: unknown group, no channel left, or a network that changed its outputs.
    """
    small = _copy(model)
    graph = _graph(small, example_inputs)
    modules = dict(small.named_modules())
    for name, indices in kept.items():
        if name not in modules:
            raise PruningError(f'plan: {name!r} is no layer of this network')
        root = modules[name]
        cut = graph.get_pruner_of_module(root)
        channels = cut.get_out_channels(root)
        gone = sorted(set(range(channels)) - set(indices))
        if not indices or not set(indices) <= set(range(channels)):
            raise PruningError(
                f'plan: {name!r} has the channels 0 to {channels - 1}; kept: {list(indices)}'
            )
        if gone:
            graph.get_pruning_group(root, cut.prune_out_channels, gone).prune(record_history=False)
    frozen = {name for name, each in model.named_parameters() if not each.requires_grad}
    for name, parameter in small.named_parameters():
        parameter.requires_grad_(name not in frozen)
        parameter.grad = None
    _check_outputs(model, small, example_inputs)
    return small.train(model.training)


def mask_channels(
    model: nn.Module, groups: ChannelGroups, kept: Mapping[str, Sequence[int]]
) -> nn.Module:
    """Return a copy of `model` whose consumers read zeros in place of the channels not kept.

    It computes what the sliced network must compute: the guard of the surgery's tests.
    """
    masked = copy.deepcopy(model)
    modules = dict(masked.named_modules())
    for name, indices in kept.items():
        group = groups[name]
        gone = set(range(group.channels)) - set(indices)
        for consumer in group.consumers:
            layer = modules[consumer.layer]
            dead = torch.tensor(consumer.of(gone), dtype=torch.long)
            axis = -1 if isinstance(layer, nn.Linear) else 1
            layer.register_forward_pre_hook(_zeroing(dead, axis))
    return masked


def _zeroing(dead: Tensor, axis: int) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].index_fill(axis, dead, 0), *inputs[1:])

    return hook


def _copy(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(True)  # frozen ones would be pruned not at all, silently
    return copied


def _graph(model: nn.Module, example_inputs: Sequence[Tensor]) -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise UserError(
            "pruning needs Torch-Pruning: pip install 'pruned_perception[train]'"
        ) from error
    with torch.enable_grad():
        try:
            return torch_pruning.DependencyGraph().build_dependency(
                model, example_inputs=tuple(example_inputs)
            )
        except Exception as error:  # whatever the user's forward or the tracing raises
            raise PruningError(f'{type(model).__name__}: cannot be traced: {error}') from error


def _channel_group(group: Any, graph: Any, names: Mapping[nn.Module, str]) -> ChannelGroup:
    producers: list[Slice] = []
    consumers: list[Slice] = []
    for item in group.items:
        dependency, module = item.dep, item.dep.target.module
        if not isinstance(module, LAYERS):
            continue
        part = Slice(
            names[module],
            tuple(int(index) for index in item.idxs),
            tuple(int(root) for root in item.root_idxs),
        )
        outputs = graph.is_out_channel_pruning_fn(dependency.handler)
        depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
        if outputs:
            producers.append(part)
        if not outputs or depthwise:
            # A depthwise layer passes its inputs on: it is cut on both sides at once.
            consumers.append(part)
    return ChannelGroup(
        name=producers[0].layer,
        channels=len(group.items[0].idxs),
        producers=tuple(producers),
        consumers=tuple(consumers),
    )


def _reason_to_keep(group: ChannelGroup, model: nn.Module, keep: Collection[str]) -> str | None:
    modules = dict(model.named_modules())
    named = [each.layer for each in group.producers if each.layer in keep]
    if named:
        return f'asked to keep {named[0]}'
    for each in (*group.producers, *group.consumers):
        layer = modules[each.layer]
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.groups > 1:
            depthwise = layer.groups == layer.in_channels == layer.out_channels
            if not depthwise:
                return f'{each.layer} is a grouped convolution'
    if not any(_mixes(modules[each.layer]) for each in group.consumers):
        return 'reaches the output of the network'
    return None


def _mixes(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or getattr(layer, 'groups', 1) == 1


@torch.no_grad()
def _check_outputs(model: nn.Module, small: nn.Module, example_inputs: Sequence[Tensor]) -> None:
    before, after = (_shapes(_copy(each)(*example_inputs)) for each in (model, small))
    if before != after:
        raise PruningError(
            f'the plan changes the outputs of the network from {before} to {after}: name the '
            'layers that make them in `keep`'
        )


def _shapes(outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return tuple(outputs.shape)
    if isinstance(outputs, Mapping):
        return {key: _shapes(value) for key, value in outputs.items()}
    if isinstance(outputs, Sequence):
        return [_shapes(value) for value in outputs]
    return type(outputs).__name__
