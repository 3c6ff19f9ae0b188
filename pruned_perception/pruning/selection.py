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

"""Which channels of a group are kept: the highest scores, random draws, or both.

Random selection scales what is kept so that every consumer's output stays right on average; its
bound is that of `bounds`. Mixed selection keeps some channels for certain and draws the rest
(Liebenwein et al., Provable filter pruning, ICLR 2020, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pruned_perception.pruning.bounds import Claim, draws_for_distinct, tail_sums

SELECTIONS = ('deterministic', 'random', 'mixed')

_DRAWS = 2**53  # a channel that these many miss counts for nothing


@dataclass(frozen=True)
class Selected:
    """Kept channels in ascending order and, where drawn, the factors of what consumers read."""

    channels: tuple[int, ...]
    factors: tuple[float, ...] | None = None

    def in_channels(self, unit: int) -> Selected:
        """Return the channels of runs of `unit`, where these are numbers of runs."""
        channels = tuple(run * unit + nth for run in self.channels for nth in range(unit))
        factors = self.factors and tuple(each for each in self.factors for _ in range(unit))
        return Selected(channels, factors)


def deterministic(scores: Tensor, wanted: int) -> Selected:
    """Keep the `wanted` highest scores."""
    return Selected(tuple(sorted(scores.double().topk(wanted).indices.tolist())))


def random(sensitivities: Tensor, wanted: float, generator: torch.Generator) -> Selected:
    """Draw as many channels as give `wanted` distinct ones in expectation.

    Channel j, drawn n_j times of m, is scaled by n_j / (m p_j): unbiased. How many distinct ones
    come out is random. Where all are wanted that anybody reads, those are kept as they are.
    """
    return _drawn(sensitivities, [], wanted, generator)


def mixed(
    sensitivities: Tensor, wanted: float, claim: Claim, generator: torch.Generator
) -> Selected:
    """Keep the highest for certain and draw the rest, so many of each that the bound is least."""
    certain, _ = _best_split(sensitivities, wanted, claim)
    order = sensitivities.double().sort(descending=True, stable=True).indices
    return _drawn(sensitivities, order[:certain].tolist(), wanted - certain, generator)


def draw(probabilities: Tensor, m: int, generator: torch.Generator) -> Tensor:
    """Return the factors (c,) of channels after m draws: n_j / (m p_j), 0 of those not drawn."""
    # Counts by themselves: m grows beyond all bounds where almost all channels are wanted.
    seed = int(torch.randint(2**62, (), generator=generator))
    counts = torch.from_numpy(np.random.default_rng(seed).multinomial(m, probabilities.numpy()))
    return torch.where(counts > 0, counts / (m * probabilities), 0.0)


def deterministic_error(sensitivities: Tensor, wanted: float) -> float:
    """Return Σ_pruned s_j, its a-priori bound relative to V on the calibration set."""
    return tail_sums(sensitivities)[math.floor(wanted)]


def random_error(sensitivities: Tensor, wanted: float, claim: Claim) -> float:
    """Return ε(m) of the m draws that give `wanted` distinct channels in expectation."""
    return _error_of_rest(sensitivities.double(), wanted, claim)


def mixed_error(sensitivities: Tensor, wanted: float, claim: Claim) -> float:
    """Return the bound of mixed selection, never above that of random selection."""
    return _best_split(sensitivities, wanted, claim)[1]


def error_of(selection: str, claim: Claim) -> Callable[[Tensor, float], float]:
    """Return the a-priori error (sensitivities, wanted) → ε of one of `SELECTIONS`."""
    if selection == 'deterministic':
        return deterministic_error
    if selection == 'random':
        return lambda values, wanted: random_error(values, wanted, claim)
    return lambda values, wanted: mixed_error(values, wanted, claim)


def _error_of_rest(values: Tensor, wanted: float, claim: Claim) -> float:
    total = float(values.sum())
    possible = int((values > 0).sum())
    if total == 0 or wanted >= possible:
        return 0.0
    return claim.error(_draws(values / total, wanted), total)


def _draws(p: Tensor, wanted: float) -> int:
    """Return the draws that give about `wanted` distinct channels, of more that are possible."""
    if wanted <= 0:
        return 0
    return max(1, round(min(draws_for_distinct(p, wanted), _DRAWS)))


def _best_split(values: Tensor, wanted: float, claim: Claim) -> tuple[int, float]:
    """Return how many are kept for certain, and the bound then.

    The error of the rest is relative to the rest's own contributions at most to the whole's, so
    that S_rest alone enters the bound. It falls with every channel whose p_j ≥ 1/m that becomes
    certain, then rises: all splits are tried.
    """
    ordered = values.double().sort(descending=True).values
    options = [
        (_error_of_rest(ordered[certain:], wanted - certain, claim), certain)
        for certain in range(math.floor(wanted) + 1)
    ]
    error, certain = min(options)
    return certain, error


def _drawn(
    values: Tensor, certain: list[int], wanted: float, generator: torch.Generator
) -> Selected:
    rest = values.double().clone()
    rest[certain] = 0.0
    factors = dict.fromkeys(certain, 1.0)
    possible = int((rest > 0).sum())
    if wanted >= possible:
        factors |= dict.fromkeys(rest.nonzero().flatten().tolist(), 1.0)
    elif wanted > 0:
        p = rest / rest.sum()
        drawn = draw(p, _draws(p, wanted), generator)
        factors |= {
            channel: float(drawn[channel]) for channel in drawn.nonzero().flatten().tolist()
        }
    if not factors:  # a group that nobody reads keeps one channel: no tensor may vanish
        factors[int(values.argmax())] = 1.0
    channels = tuple(sorted(factors))
    return Selected(channels, tuple(factors[channel] for channel in channels))
