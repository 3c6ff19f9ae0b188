"""Greedy choice of channels by the sum of their contributions to sampled outputs.

Source: Luo et al., ThiNet (ICCV 2017), section 3.2: at sampled outputs of the next layer, grow the
set of pruned channels by the channel that keeps (Σ of their contributions)² smallest. That is
backward elimination on the uncentred second moments of the contributions; the criterion
`joint_error` works on whole layers, centred, with all outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruned_perception.pruning.contributions import contributions, fields, kernel, sampled
from pruned_perception.pruning.criteria.elimination import eliminate
from pruned_perception.pruning.criteria.subject import Subject
from pruned_perception.pruning.graph.observation import observed, run
from pruned_perception.pruning.scores import Scores

POSITIONS = 10
OUTPUTS = 1  # per sampled position


def score(subject: Subject) -> Scores:
    """Return the order of elimination, 1 for the channel that goes last."""
    readers = subject.structure.readers()
    modules = dict(subject.model.named_modules())
    generator = subject.generator
    moments = {
        name: torch.zeros(channels, channels, dtype=torch.float64)
        for name, channels in subject.structure.channels.items()
    }

    def observe(name: str, x: Tensor, output: Tensor) -> None:
        layer = modules[name]
        found, weight = fields(layer, x.detach()), kernel(layer)
        for field in sampled(found, weight, POSITIONS, generator):
            for values in contributions(field, weight):  # (c, n, f)
                chosen = torch.randint(
                    values.shape[2], (values.shape[1], OUTPUTS), generator=generator
                )
                picked = values.gather(2, chosen.expand(len(values), -1, -1)).flatten(1).double()
                for group, part in readers[name]:
                    own = torch.zeros(group.channels, picked.shape[1], dtype=torch.float64)
                    own.index_add_(0, torch.tensor(part.roots), picked[list(part.indices)])
                    moments[group.name] += own @ own.T

    with observed(subject.model, readers, observe):
        run(subject.model, subject.batches('thinet'))
    groups = subject.structure.groups
    return subject.scores(
        'thinet', {name: eliminate(m, groups[name].unit)[0] for name, m in moments.items()}
    )
