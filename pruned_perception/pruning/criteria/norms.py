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

"""Norms of filters, and random scores: criteria that look at no data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pruned_perception.pruning.contributions import kernel
from pruned_perception.pruning.criteria import Subject, criterion
from pruned_perception.pruning.graph.channels import ChannelGroup
from pruned_perception.pruning.scores import Scores


@criterion
def filter_l1(subject: Subject) -> Scores:
    """Return ℓ1 norms, relative to their layer's mean.

    ℓ1 norm of the filters that make a channel.

    Source: Li et al., Pruning filters for efficient ConvNets (ICLR 2017), section 3.1.
    """
    return subject.scores('filter_l1', filter_norms(subject, order=1))


@criterion
def filter_l2(subject: Subject) -> Scores:
    """Return ℓ2 norms, relative to their layer's mean.

    ℓ2 norm of the filters that make a channel.

    Source: Li et al., Pruning filters for efficient ConvNets (ICLR 2017), section 3.1.
    """
    return subject.scores('filter_l2', filter_norms(subject, order=2))


@criterion
def random(subject: Subject) -> Scores:
    """Return uniform draws from 0 … 1.

    Random scores: with another criterion's allocation, the control for its choice of channels.
    """
    generator = subject.generator
    channels = subject.structure.channels
    return subject.scores(
        'random', {name: torch.rand(count, generator=generator) for name, count in channels.items()}
    )


@torch.no_grad()
def filter_norms(subject: Subject, *, order: int) -> dict[str, Tensor]:
    """Return per group (channels,) the norm of each channel's filter, averaged over producers.

    Each producer's norms are divided by their mean first, since layers differ in scale.
    """
    modules = dict(subject.model.named_modules())
    return {
        group.name: _norms(modules, group, order) for group in subject.structure.groups.prunable
    }


def _norms(modules: dict[str, nn.Module], group: ChannelGroup, order: int) -> Tensor:
    total = torch.zeros(group.channels)
    for producer in group.producers:
        filters = kernel(modules[producer.layer]).flatten(0, 1).flatten(1)  # (f, c/groups · κ)
        norms = filters.norm(p=order, dim=1)[list(producer.indices)]
        share = norms / norms.mean().clamp(min=1e-12)
        total.index_add_(0, torch.tensor(producer.roots), share.float())
    return total / len(group.producers)
