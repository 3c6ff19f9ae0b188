"""Labels of channels, and which of them are tied to each other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

STAYS = 0  # the label of what is no channel of a layer: inputs of the network, constants


class Channels(NamedTuple):
    """The labels (n,) of a tensor's n channels, which lie along `axis`."""

    axis: int
    labels: Tensor


class Ties:
    """Which labels go together (a union–find), which stay, and why."""

    def __init__(self) -> None:
        self._parents = [STAYS]
        self._stays: dict[int, str] = {}
        self._joined: dict[int, str] = {}

    def new(self, count: int) -> Tensor:
        """Return `count` labels tied to nothing."""
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        return torch.arange(start, start + count)

    def roots(self, labels: Tensor) -> tuple[int, ...]:
        """Return one representative for all labels that are tied to each other."""
        return tuple(self._root(label) for label in labels.tolist())

    def why_stays(self, root: int) -> str | None:
        """Return why these channels stay, if they do."""
        return 'is not made by a layer' if root == STAYS else self._stays.get(root)

    def why_joined(self, root: int) -> str:
        """Return what tied channels of one and the same tensor to each other."""
        return self._joined.get(root, 'it has one channel only')

    def fix(self, labels: Tensor, why: str) -> None:
        """Let these channels stay."""
        for label in labels.unique().tolist():
            if label != STAYS:
                self._stays.setdefault(self._root(label), why)

    def tie(self, these: Tensor, those: Tensor, why: str, *, joins: bool = False) -> None:
        """Tie labels pairwise; `joins`: both are channels of one tensor."""
        pairs = torch.stack((these.flatten(), those.flatten()), dim=1)
        for one, other in pairs[pairs[:, 0] != pairs[:, 1]].unique(dim=0).tolist():
            if STAYS in (one, other):
                self.fix(torch.tensor([one, other]), f'meets what stays, {why}')
                continue
            first, second = sorted((self._root(one), self._root(other)))
            if first == second:
                continue
            self._parents[second] = first
            for reasons in (self._stays, self._joined):
                if second in reasons:
                    reasons.setdefault(first, reasons.pop(second))
            if joins:
                self._joined.setdefault(first, why)

    def _root(self, label: int) -> int:
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label
