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

"""Groups of coupled channels as plain data; they are found by `groups`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slice:
    """A layer's part in a group: its channel `indices[i]` belongs to the group's `roots[i]`.

    After a flatten a consumer has many inputs per channel; after a concatenation its indices
    start somewhere in the middle; where two groups are added to one concatenated layer, that layer
    has a part in both.
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

    Channels are numbered by the group, 0 … `channels` − 1: as the outputs of its first producer,
    unless `unit` > 1 and what goes together there is not side by side (halves of a split).

    Attributes:
        name: its first producer; with `:start` where only a part of that layer is in the group.
        channels: how many there are.
        producers: lose outputs (several, where their outputs are added).
        consumers: lose inputs. Depthwise and grouped convolutions are producers and consumers;
            global response norms are consumers, too.
        channel_parameters: what one channel has in batch norms and the like, apart from the layers
            that are named here.
        unit: channels are kept or go in whole runs of so many: 0 … unit − 1, and so on (group
            norm, grouped convolution, splits into equal parts).
    """

    name: str
    channels: int
    producers: tuple[Slice, ...]
    consumers: tuple[Slice, ...]
    channel_parameters: float = 0
    unit: int = 1


@dataclass(frozen=True)
class ChannelGroups:
    """All groups that may be pruned, and why the other layers' outputs are kept.

    `not_pruned` is by layer; `layer:start` where only a part of the layer's outputs is kept. `even`
    names grouped convolutions that keep their groups, each of which loses equally many channels;
    of others, whole groups go.
    """

    prunable: tuple[ChannelGroup, ...]
    not_pruned: dict[str, str]
    even: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> ChannelGroup:
        return next(group for group in self.prunable if group.name == name)
