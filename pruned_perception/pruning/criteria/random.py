"""Random scores: with another criterion's allocation, the control for its choice of channels."""

from __future__ import annotations

import torch

from pruned_perception.pruning.criteria.subject import Subject
from pruned_perception.pruning.scores import Scores


def score(subject: Subject) -> Scores:
    """Return uniform draws from 0 … 1."""
    generator = subject.generator
    channels = subject.structure.channels
    return subject.scores(
        'random', {name: torch.rand(count, generator=generator) for name, count in channels.items()}
    )
