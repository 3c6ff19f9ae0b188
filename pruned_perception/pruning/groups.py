"""Channels that must go together, as plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slice:
    """A layer's part in a group: its channel `indices[i]` belongs to the group's `roots[i]`.

    After a flatten a consumer has many inputs per channel; after a concatenation its indices
    start somewhere in the middle.
    """

    layer: str
    indices: tuple[int, ...]
    roots: tuple[int, ...]

    def of(self, channels: set[int]) -> list[int]:
        """Return the layer's indices that belong to these channels of the group."""
        return [i for i, root in zip(self.indices, self.roots, strict=True) if root in channels]


@dataclass(frozen=True)
class ChannelGroup:
    """Coupled channels: cut one of them and it is cut in every layer named here.

    `producers` lose outputs (several, where their outputs are added), `consumers` lose inputs.
    Named after the first producer.
    """

    name: str
    channels: int
    producers: tuple[Slice, ...]
    consumers: tuple[Slice, ...]


@dataclass(frozen=True)
class ChannelGroups:
    """All groups that may be pruned, and why the other layers' outputs are kept."""

    prunable: tuple[ChannelGroup, ...]
    kept: dict[str, str]

    def __getitem__(self, name: str) -> ChannelGroup:
        return next(group for group in self.prunable if group.name == name)
