"""Where two networks decide differently, frame by frame, in one pass over a hold-out."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from pruned_perception.pruning.calibration import Batch, CheckedBatches, as_inputs
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.observation import tensors

Decide = Callable[[Any, Any], ArrayLike]
"""Parent's output, child's output → (B,) bool, which frames of the batch are decided otherwise."""

Flip = Callable[[Any, Any, Any], ArrayLike]
"""Parent's output, child's output, labels → (B,) bool, where only the parent is right."""


@dataclass(frozen=True)
class Comparison:
    """Decisions of two networks on the same frames, and the fingerprint of the frames."""

    changed: NDArray[np.bool_]
    """(n,) whether the pruned network decided differently."""
    negative_flips: NDArray[np.bool_] | None
    """(n,) whether only the parent was right; None without labels."""
    sha256: str


def argmax_decisions(parent: Any, child: Any) -> Tensor:
    """Say, for scores (B, classes), where the highest one is another class; (B,) bool."""
    for name, scores in (('parent', parent), ('child', child)):
        if not isinstance(scores, Tensor) or scores.ndim != 2:
            raise PruningError(
                f'certify: the {name} does not return scores (B, classes); say in `decide` when '
                'two outputs are different decisions'
            )
    return parent.argmax(dim=1) != child.argmax(dim=1)


def argmax_negative_flips(parent: Any, child: Any, labels: Any) -> Tensor:
    """Say, for scores (B, classes) and labels (B,), where only the parent is right; (B,) bool."""
    changed = argmax_decisions(parent, child)
    return changed & (parent.argmax(dim=1) == torch.as_tensor(labels, device=parent.device))


@torch.no_grad()
def compare(
    model: nn.Module,
    small: nn.Module,
    holdout: Iterable[Batch],
    *,
    decide: Decide = argmax_decisions,
    labels: Sequence[Any] | Tensor | None = None,
    flip: Flip = argmax_negative_flips,
) -> Comparison:
    """Run both networks over the hold-out once and compare what they decide.

    Both run in evaluation mode, whatever their mode, and get it back.

    Args:
        model: the parent.
        small: the pruned network, as it will be used: after fine-tuning.
        holdout: batches of inputs; may be a generator, nothing is kept.
        decide: from the two outputs on a batch, which frames are decided differently.
        labels: (n,) the truth of each frame, for negative flips.
        flip: from the two outputs and the batch's labels, which frames only the parent gets right.

    Raises:
        PruningError: an empty hold-out, an output that is NaN or differs from run to run, or not
            one answer or label per frame.
    """
    iterator = iter(holdout)
    first = next(iterator, None)
    if first is None:
        raise PruningError('hold-out set: empty; give at least one batch of inputs')
    batches = CheckedBatches(
        itertools.chain([first], iterator), as_inputs(first), name='hold-out set'
    )
    changed: list[NDArray[np.bool_]] = []
    flips: list[NDArray[np.bool_]] = []
    done = 0
    with _evaluation(model, small):
        for index, inputs in enumerate(batches):
            size = len(inputs[0])
            parent = _output('parent', model, index, inputs)
            child = _output('pruned network', small, index, inputs)
            changed.append(as_events(f'batch {index}: decide', decide(parent, child), size))
            if labels is not None and done + size <= len(labels):
                truth = labels[done : done + size]
                flips.append(as_events(f'batch {index}: flip', flip(parent, child, truth), size))
            done += size
    if labels is not None and len(labels) != done:
        raise PruningError(f'labels: {len(labels)} for {done} frames; give one for each')
    return Comparison(
        changed=np.concatenate(changed),
        negative_flips=np.concatenate(flips) if flips else None,
        sha256=batches.record.sha256,
    )


def as_events(name: str, values: ArrayLike, n: int | None = None) -> NDArray[np.bool_]:
    """Return (n,) bool, or refuse and say what is wrong with it."""
    array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    if array.ndim == 1 and len(array) == 0:
        raise PruningError(f'{name}: no frame; certify on at least one')
    if array.ndim != 1 or array.dtype != bool:
        raise PruningError(
            f'{name}: must be one bool per frame, got {array.dtype} of shape {array.shape}'
        )
    if n is not None and len(array) != n:
        raise PruningError(f'{name}: {len(array)} values for {n} frames; give one for each')
    return array


@contextlib.contextmanager
def _evaluation(*networks: nn.Module) -> Iterator[None]:
    modes = {each: each.training for network in networks for each in network.modules()}
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _output(name: str, network: nn.Module, index: int, inputs: tuple[Tensor, ...]) -> Any:
    output = network(*inputs)
    if any(torch.isnan(each).any() for each in tensors(output)):
        raise PruningError(f'the {name} returns NaN on batch {index} of the hold-out set')
    if index == 0:
        again = tensors(network(*inputs))
        if not all(map(torch.equal, tensors(output), again)):
            raise PruningError(
                f'the {name} returns something else when it runs again on the same batch: a '
                'certificate needs a deterministic network (no dropout in evaluation mode, '
                'torch.use_deterministic_algorithms on a GPU)'
            )
    return output
