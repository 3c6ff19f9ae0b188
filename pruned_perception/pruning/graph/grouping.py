"""Coupled channels sorted into groups, of which any number can be kept."""

from __future__ import annotations

from collections.abc import Mapping

from pruned_perception.pruning.graph.coupling import Coupling
from pruned_perception.pruning.graph.groups import ChannelGroup, ChannelGroups, Slice

# Of each group, in its order: the coupling's integers of what goes together.
Atoms = dict[str, tuple[int, ...]]
# Where the channels of one integer are: (side, layer or parameter) → indices.
Places = Mapping[tuple[str, str], list[int]]


def group_channels(coupling: Coupling) -> tuple[ChannelGroups, Atoms]:
    """Return the groups that may be pruned, and what goes together in each.

    A group is all channels that are made, read and followed at the same places equally often. So
    its cost is proportional to how many of them are kept, and no layer is left without channels
    as long as one is kept.
    """
    everywhere: dict[int, dict[tuple[str, str], list[int]]] = {}
    for side, layers in (
        ('outputs', coupling.outputs),
        ('inputs', coupling.inputs),
        ('others', coupling.others),
    ):
        for layer, labels in layers.items():
            for index, number in enumerate(labels):
                places = everywhere.setdefault(number, {})
                places.setdefault((side, layer), []).append(index)
    alike: dict[frozenset[tuple[tuple[str, str], int]], list[int]] = {}
    for number, places in everywhere.items():  # those of the first layer first
        if number not in coupling.stays and any(side == 'outputs' for side, _ in places):
            signature = frozenset((place, len(indices)) for place, indices in places.items())
            alike.setdefault(signature, []).append(number)
    prunable: list[ChannelGroup] = []
    atoms: Atoms = {}
    stays = dict(coupling.stays)
    for numbers in alike.values():
        group = _group([everywhere[number] for number in numbers], coupling)
        if {each.layer for each in group.consumers} <= {each.layer for each in group.producers}:
            stays |= dict.fromkeys(numbers, 'is read by no layer')
        elif len(numbers) == 1:
            why = coupling.joined[numbers[0]]
            stays[numbers[0]] = f'has channels that go all together, {why}'
        else:
            prunable.append(group)
            atoms[group.name] = tuple(numbers)
    return ChannelGroups(tuple(prunable), _kept(coupling, stays)), atoms


def _group(members: list[Places], coupling: Coupling) -> ChannelGroup:
    layers = [layer for side, layer in members[0] if side == 'outputs']
    whole = [
        layer
        for layer in layers
        if sum(len(each['outputs', layer]) for each in members) == len(coupling.outputs[layer])
    ]
    first = (whole or layers)[0]
    unit = len(members[0]['outputs', first])
    start = members[0]['outputs', first][0]

    def parts(side: str) -> tuple[Slice, ...]:
        slices = []
        for place in members[0]:
            if place[0] != side:
                continue
            pairs = sorted(
                (index, run * unit + nth * unit // len(each[place]))
                for run, each in enumerate(members)
                for nth, index in enumerate(each[place])
            )
            indices, roots = zip(*pairs, strict=True)
            slices.append(Slice(place[1], indices, roots))
        return tuple(slices)

    # Norms are listed beside their vectors; buffers are no parameters.
    vectors = [place for place in members[0] if place[1] in coupling.parameters]
    followers = sum(len(members[0][place]) for place in vectors)
    exact = followers % unit == 0
    return ChannelGroup(
        name=first if whole else f'{first}:{start}',
        channels=len(members) * unit,
        producers=parts('outputs'),
        consumers=parts('inputs'),
        channel_parameters=followers // unit if exact else followers / unit,
        unit=unit,
    )


def _kept(coupling: Coupling, stays: Mapping[int, str]) -> dict[str, str]:
    kept = {}
    for layer, numbers in coupling.outputs.items():
        reasons = [stays.get(number) for number in numbers]
        if None not in reasons:
            kept[layer] = str(reasons[0])
        for index, why in enumerate(reasons):
            if None in reasons and why is not None and why not in reasons[:index]:
                kept[f'{layer}:{index}'] = why
    return kept
