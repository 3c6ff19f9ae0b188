"""Whether two networks compute the same, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.cost import LAYERS
from pruned_perception.pruning.graph.observation import observed, tensors

# Of a difference, relative to the largest value of the layer's outputs. Rounding stays below 1e-5;
# a channel in the wrong place errs by the value itself.
TOLERANCE = 1e-3


def telling(example_inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the inputs, with random ones for constant ones, which would hide errors.

    Real numbers from 0 to 1, bytes from 0 to 255.
    """
    generator = torch.Generator().manual_seed(0)

    def random(each: Tensor) -> Tensor:
        if each.numel() < 2 or each.min() != each.max():
            return each
        if each.dtype == torch.uint8:
            return torch.randint(256, each.shape, generator=generator).to(each)
        if not each.is_floating_point():
            return each
        return torch.rand(each.shape, generator=generator).to(each)

    return tuple(random(each) for each in example_inputs)


def deviation(
    wanted: nn.Module,
    found: nn.Module,
    example_inputs: Sequence[Tensor],
    gone: Mapping[str, Sequence[int]],
) -> tuple[float, str]:
    """Return by how much `found` deviates from `wanted` in evaluation mode, and where first.

    Compared are the outputs of every layer, but for the channels `gone` (layer → indices), and
    those of the network: the largest absolute difference relative to the largest absolute value.
    Where `found` fails it is infinite, and the place is the error.
    """
    expected = _results(wanted, example_inputs)
    actual: list[tuple[str, Tensor]] = []
    try:
        _run(found, example_inputs, actual)
    except Exception as error:  # whatever the user's forward raises
        place = f'after {actual[-1][0]}' if actual else 'at the start'
        return float('inf'), f'{type(error).__name__} {place}: {error}'
    if [name for name, _ in expected] != [name for name, _ in actual]:
        return float('inf'), 'other layers run'
    modules = dict(wanted.named_modules())
    worst, where = 0.0, ''
    for (name, one), (_, other) in zip(expected, actual, strict=True):
        if name in gone:
            axis = one.ndim - (1 if isinstance(modules[name], nn.Linear) else 3)
            rest = sorted(set(range(one.shape[axis])) - set(gone[name]))
            one = one.index_select(axis, torch.tensor(rest, device=one.device))
        difference = _difference(one, other)
        if difference > worst and worst <= TOLERANCE:  # what follows an error is wrong, too
            where = name
        worst = max(worst, difference)
    return worst, where


def check_deterministic(model: nn.Module, example_inputs: Sequence[Tensor]) -> None:
    """Raise PruningError if two runs on the same inputs, in evaluation mode, differ; say where."""
    with torch.random.fork_rng():
        first, second = (_results(model, example_inputs) for _ in range(2))
    for (name, one), (_, other) in zip(first, second, strict=False):
        if (difference := _difference(one, other)) > TOLERANCE:
            raise PruningError(
                f'{type(model).__name__}: two runs on the same inputs differ, first in {name} (by '
                f'{difference:.2g} of the range): pruning needs a network that computes the same '
                'each time; is dropout called with training=True, or are random numbers drawn?'
            )


def _results(model: nn.Module, example_inputs: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
    results: list[tuple[str, Tensor]] = []
    _run(model, example_inputs, results)
    return results


@torch.no_grad()
def _run(
    model: nn.Module, example_inputs: Sequence[Tensor], results: list[tuple[str, Tensor]]
) -> None:
    """Run the model in evaluation mode; append the outputs of its layers, then its own."""
    layers = [name for name, module in model.named_modules() if isinstance(module, LAYERS)]

    def observe(name: str, _: Tensor, output: Tensor) -> None:
        results.append((name, output.clone()))  # an activation may be in place

    modes = {module: module.training for module in model.modules()}
    try:
        with observed(model.eval(), layers, observe):
            outputs = tensors(model(*(each.clone() for each in example_inputs)))
    finally:
        for module, training in modes.items():
            module.training = training
    results.extend((f'output {index} of the network', each) for index, each in enumerate(outputs))


def _difference(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return float('inf')
    one, other = one.double(), other.double()
    same = (one == other) | (one.isnan() & other.isnan())
    if same.all():
        return 0.0
    difference = torch.where(same, 0.0, (one - other).abs()).nan_to_num(nan=float('inf'))
    return float(difference.max()) / max(float(one.nan_to_num(0, 0, 0).abs().max()), 1e-12)
