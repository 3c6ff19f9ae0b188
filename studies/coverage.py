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

"""Whether guarantees keep what they promise: simulations of them, and of bounds that do not.

    python -m studies.coverage            # simulates (seven CPU minutes), writes the CSV, prints
    python -m studies.coverage --table    # prints the table from the CSV

Every cell has a seed of its own, from its name; parts that stand in the CSV are not run again
unless it is deleted. `wrong` is the share of simulated worlds in which a statement was false, to be
held against its nominal share; `bound`, `power` and `delay` say what it costs. Rows that are not
`offered` are there for contrast.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from pruned_perception.inference.evidence import FRACTIONS as WATCH_FRACTIONS
from pruned_perception.inference.evidence import log_wealth
from pruned_perception.inference.intervals import mean_interval, median_interval, values_needed
from pruned_perception.inference.latency import bootstrap_percentiles
from pruned_perception.pruning.conformal import conformal_factor, images_needed, largest_ratios
from pruned_perception.pruning.eprocess import (
    FRACTIONS,
    WEIGHTS,
    drives_needed,
    upper_bounds,
)
from pruned_perception.pruning.prune_potential import certify_potential
from pruned_perception.pruning.statistics import (
    PairedDifference,
    crossed_difference,
    paired_difference,
)
from studies.coverage_tables import Row, as_tables, read, write

RESULTS = Path(__file__).parent / 'results' / 'coverage.csv'
ALPHA = 0.05
WORLDS = 2000
"""Simulated hold-outs of a cell: a true 95 % is seen within ± 1.5 points but once in a thousand."""

Array = NDArray[Any]
Generator = np.random.Generator


# ---------------------------------------------------------------- drives


def own_rates(generator: Generator, mean: Array | float, icc: float, shape: Sequence[int]) -> Array:
    """Return a rate for each drive, beta distributed: intra-class correlation `icc` of frames."""
    if icc == 0:
        return np.broadcast_to(mean, tuple(shape))
    total = (1 - icc) / icc
    return generator.beta(np.multiply(mean, total), np.subtract(1, mean) * total, tuple(shape))


FRAMES = 25


@dataclass(frozen=True)
class World:
    """Kinds of drives: how long they are, how often something happens in them."""

    name: str
    longest: int
    lengths: Callable[[Generator, Sequence[int]], Array]
    """Shape → frames of each drive."""
    mean: Callable[[Array, float], Array]
    """Frames, rate → expected rate of such a drive."""
    truth: Callable[[float], float]
    """Rate → E[events] / E[frames]."""

    def draw(self, generator: Generator, shape: Sequence[int], rate: float, icc: float) -> Any:
        """Return events and frames of drives."""
        frames = self.lengths(generator, shape)
        mean = self.mean(frames, rate)
        own = own_rates(generator, np.minimum(mean, 0.99), icc, shape)
        return generator.binomial(frames, np.where(mean < 1, own, 1.0)), frames


def _equal(generator: Generator, shape: Sequence[int]) -> Array:
    return np.full(tuple(shape), FRAMES)


def _uneven(generator: Generator, shape: Sequence[int]) -> Array:
    lengths = np.round(generator.lognormal(math.log(FRAMES), 0.8, tuple(shape)))
    return np.clip(lengths, 1, 8 * FRAMES).astype(int)


def _two_lengths(share: float, long: int) -> Callable[[Generator, Sequence[int]], Array]:
    def lengths(generator: Generator, shape: Sequence[int]) -> Array:
        return np.where(generator.random(tuple(shape)) < share, long, FRAMES)

    return lengths


def _failing(share: float, long: int) -> Callable[[float], float]:
    weight = share * long / (share * long + (1 - share) * FRAMES)
    return lambda rate: weight + (1 - weight) * rate


def _same(frames: Array, rate: float) -> Array:
    return np.full(frames.shape, rate)


WORLDS_OF_DRIVES = (
    World('equal lengths', FRAMES, _equal, _same, lambda rate: rate),
    World('unequal lengths', 8 * FRAMES, _uneven, _same, lambda rate: rate),
    World(
        'longer is worse',
        4 * FRAMES,
        _two_lengths(0.25, 4 * FRAMES),
        lambda frames, rate: np.where(frames > FRAMES, 2 * rate, rate / 2),
        lambda rate: (4 * 2 * rate * 0.25 + rate / 2 * 0.75) / (4 * 0.25 + 0.75),
    ),
    World(
        'rare long failures',
        10 * FRAMES,
        _two_lengths(0.02, 10 * FRAMES),
        lambda frames, rate: np.where(frames > FRAMES, 1.0, rate),
        _failing(0.02, 10 * FRAMES),
    ),
)
DRIVES = (3, 5, 8, 20, 40, 100)
ICCS = (0.0, 0.1, 0.3, 0.7)
RATES = (0.02, 0.1, 0.3)

# ---------------------------------------------------------------- bounds


@cache
def _dirichlet(drives: int, resamples: int = 4000) -> Array:
    return np.random.default_rng(0).standard_exponential((resamples, drives + 1))


def bootstrap_bounds(events: Array, frames: Array, alpha: float = ALPHA) -> Array:
    """Return (worlds,) bounds of the Bayesian bootstrap over drives with one imagined drive.

    The imagined one is as long as the longest seen, all its frames events.
    """
    weights = _dirichlet(events.shape[1])
    longest = frames.max(1) * weights[:, -1:]
    means = (weights[:, :-1] @ events.T + longest) / (weights[:, :-1] @ frames.T + longest)
    return np.quantile(means, 1 - alpha, axis=0)


def effective_size_bounds(events: Array, frames: Array, alpha: float = ALPHA) -> Array:
    """Return (worlds,) Clopper–Pearson bounds of the effective sample size, ICC estimated."""
    n, total, k = frames.sum(1), events.sum(1), (frames > 0).sum(1)
    squares = (frames**2).sum(1)
    means = np.divide(events, frames, out=np.zeros(events.shape), where=frames > 0)
    overall = total / n
    with np.errstate(divide='ignore', invalid='ignore'):
        between = (frames * (means - overall[:, None]) ** 2).sum(1) / (k - 1)
        within = (frames * means * (1 - means)).sum(1) / (n - k)
        n0 = (n - squares / n) / (k - 1)
        icc = np.clip((between - within) / (between + (n0 - 1) * within), 0, 1)
    icc = np.where((total == 0) | (total == n) | ~np.isfinite(icc), 1.0, icc)
    size = n / (1 + (squares / n - 1) * icc)
    happened = overall * size
    bound = special.betaincinv(happened + 1, np.maximum(size - happened, 1e-9), 1 - alpha)
    return np.where(total == n, 1.0, bound)


def eprocess_bounds(longest: int) -> Callable[..., Array]:
    """Return the package's bound, for drives of at most this length."""

    def bounds(events: Array, frames: Array, alpha: float = ALPHA) -> Array:
        return upper_bounds(events, frames, longest=longest, confidence=1 - alpha)

    return bounds


def methods(longest: int) -> list[tuple[str, bool, Callable[..., Array]]]:
    """Return name, whether offered, and function of each bound."""
    return [
        ('e-process', True, eprocess_bounds(longest)),
        ('cluster bootstrap', False, bootstrap_bounds),
        ('Clopper–Pearson, n_eff', False, effective_size_bounds),
    ]


# ---------------------------------------------------------------- parts


def _generator(*name: Any) -> Generator:
    return np.random.default_rng(zlib.crc32('|'.join(map(str, name)).encode()))


def one_cell(world: World, drives: int, icc: float, rate: float) -> Iterator[Row]:
    """Yield how often each bound is below the true rate, and its mean."""
    cell = ('one bound', world.name, drives, icc, rate)
    events, frames = world.draw(_generator(*cell), (WORLDS, drives), rate, icc)
    for name, offered, bound in methods(world.longest):
        found = bound(events, frames)
        wrong = float((found < world.truth(rate)).mean())
        yield Row(*cell, name, offered, 'wrong', wrong, ALPHA, WORLDS)
        yield Row(*cell, name, offered, 'bound', float(found.mean()), math.nan, WORLDS)


def one_bound() -> Iterator[Row]:
    """Yield every world of drives, number, ICC and rate."""
    for world, drives, icc, rate in itertools.product(WORLDS_OF_DRIVES, DRIVES, ICCS, RATES):
        if world.name == 'rare long failures' and (icc > 0.3 or rate > 0.1):
            continue  # the failures hide everything else
        yield from one_cell(world, drives, icc, rate)


def slices() -> Iterator[Row]:
    """Yield four slices at once, each in about half of the drives, with rates of their own."""
    factors = np.array([0.5, 1, 1.5, 2])
    for world, drives, icc in itertools.product(WORLDS_OF_DRIVES[:2], DRIVES, (0.1, 0.7)):
        cell = ('four slices', world.name, drives, icc, 0.1)
        generator = _generator(*cell)
        frames = world.lengths(generator, (WORLDS, drives))
        shown = generator.random((4, WORLDS, drives)) < 0.5
        parts = np.moveaxis(generator.multinomial(frames, [0.25] * 4), -1, 0) * shown
        own = own_rates(generator, 0.1, icc, (WORLDS, drives))
        level = np.clip(own * factors[:, None, None], 0, 1)
        events = generator.binomial(parts, level)
        truth = _clipped_means(icc, tuple(factors))
        yield from _together(cell, events, parts, truth, world.longest)


@cache
def _clipped_means(icc: float, factors: tuple[float, ...]) -> Array:
    """Return the true rate of each slice, from many drives."""
    own = own_rates(_generator(icc), 0.1, icc, (2_000_000,))
    return np.array([np.minimum(own * each, 1).mean() for each in factors])


def kinds() -> Iterator[Row]:
    """Yield three kinds of events at once: each contains the next."""
    for world, drives, icc in itertools.product(WORLDS_OF_DRIVES[:2], DRIVES, (0.1, 0.7)):
        cell = ('three kinds', world.name, drives, icc, 0.2)
        generator = _generator(*cell)
        first, frames = world.draw(generator, (WORLDS, drives), 0.2, icc)
        second = generator.binomial(first, 0.5)
        events = np.stack([first, second, generator.binomial(second, 0.4)])
        counts = np.broadcast_to(frames, events.shape)
        yield from _together(cell, events, counts, np.array([0.2, 0.1, 0.04]), world.longest)


def _together(
    cell: tuple[str, str, int, float, float], events: Array, counts: Array, truth: Array, most: int
) -> Iterator[Row]:
    """Yield how often any of several bounds is too low: α shared, and each at α for contrast."""
    several = len(events)
    shared = [(name, offered, bound, ALPHA / several) for name, offered, bound in methods(most)[:2]]
    alone = ('e-process, α not shared', False, eprocess_bounds(most), ALPHA)
    for name, offered, bound, alpha in (*shared, alone):
        stated = counts.sum(-1) > 0
        found = np.ones(events.shape[:2])
        for index in range(several):
            some = stated[index]
            found[index, some] = bound(events[index, some], counts[index, some], alpha)
        wrong = float((found < truth[:, None]).any(0).mean())
        yield Row(*cell, name, offered, 'wrong', wrong, ALPHA, WORLDS)
        yield Row(*cell, name, offered, 'bound', float(found.mean()), math.nan, WORLDS)


def selection() -> Iterator[Row]:
    """Yield the best of five equally good candidates, by the same drives or by fresh ones."""
    world, rate, several = WORLDS_OF_DRIVES[0], 0.1, 5
    for drives, icc in itertools.product(DRIVES, (0.1, 0.7)):
        cell = ('best of five', world.name, drives, icc, rate)
        generator = _generator(*cell)
        drawn = [world.draw(generator, (WORLDS, drives), rate, icc) for _ in range(several + 1)]
        events, fresh = np.stack([e for e, _ in drawn[:-1]]), drawn[-1]
        frames, rows = drawn[0][1], np.arange(WORLDS)
        best = events.sum(-1).argmin(0)
        for name, offered, bound, alpha, chosen in (
            ('e-process, fresh drives', True, eprocess_bounds(world.longest), ALPHA, fresh[0]),
            ('e-process, α shared', True, eprocess_bounds(world.longest), ALPHA / several, None),
            ('e-process, same drives', False, eprocess_bounds(world.longest), ALPHA, None),
            ('cluster bootstrap, same drives', False, bootstrap_bounds, ALPHA, None),
        ):
            found = bound(events[best, rows] if chosen is None else chosen, frames, alpha)
            yield Row(*cell, name, offered, 'wrong', float((found < rate).mean()), ALPHA, WORLDS)
            yield Row(*cell, name, offered, 'bound', float(found.mean()), math.nan, WORLDS)


def looks() -> Iterator[Row]:
    """Yield a hold-out that grows to 300 drives and is looked at again and again."""
    drives, rate = 300, 0.1
    for world, icc in itertools.product(WORLDS_OF_DRIVES[:2], ICCS):
        cell = ('looked at again', world.name, drives, icc, rate)
        events, frames = world.draw(_generator(*cell), (WORLDS, drives), rate, icc)
        terms = (rate * frames - events) / world.longest / (1 - rate)
        paths = _paths(terms, FRACTIONS, WEIGHTS)
        wrong = float((paths.max(1) >= -math.log(ALPHA)).mean())
        yield Row(*cell, 'e-process, every drive', True, 'wrong', wrong, ALPHA, WORLDS)
        low = np.zeros(WORLDS, bool)
        for seen in (5, 8, 20, 40, 100, 300):
            low |= bootstrap_bounds(events[:, :seen], frames[:, :seen]) < rate
        name = 'cluster bootstrap, six looks'
        yield Row(*cell, name, False, 'wrong', float(low.mean()), ALPHA, WORLDS)


def _paths(
    terms: Array, fractions: Sequence[float], weights: Sequence[float] | None = None
) -> Array:
    """Return (worlds, drives) log wealth after each drive."""
    shares = [1 / len(fractions)] * len(fractions) if weights is None else weights
    paths = np.full(terms.shape, -np.inf)
    for c, w in zip(fractions, shares, strict=True):
        np.logaddexp(paths, math.log(w) + np.cumsum(np.log1p(c * terms), 1), out=paths)
    return paths


def forecast() -> Iterator[Row]:
    """Yield how often as many drives as forecast bring the bound to where it was wanted."""
    world, worlds = WORLDS_OF_DRIVES[0], 300
    for drives, rate in itertools.product((20, 40), (0.02, 0.1)):
        cell = ('forecast', world.name, drives, 0.1, rate)
        generator, reached = _generator(*cell), []
        for _ in range(worlds):
            events, frames = world.draw(generator, (drives,), rate, 0.1)
            now = float(upper_bounds(events, frames, longest=world.longest))
            wanted = 0.7 * now + 0.3 * events.sum() / frames.sum()
            more = drives_needed(events, frames, wanted, longest=world.longest)
            later, length = world.draw(generator, (more,), rate, 0.1)
            both = np.concatenate([events, later]), np.concatenate([frames, length])
            reached.append(float(upper_bounds(*both, longest=world.longest)) <= wanted)
        value = float(np.mean(reached))
        yield Row(*cell, 'e-process', True, 'reached', value, math.nan, worlds)


# ---------------------------------------------------------------- which stakes


def stakes() -> Iterator[Row]:
    """Yield the mean bound of several ways to choose λ; all are proven, so only width decides."""
    worlds = 200
    ways: dict[str, Callable[[Array, Array, int, Array], Array]] = {
        'largest stake': _mixture((0.9,), (1.0,)),
        'mixture, largest preferred': _mixture(FRACTIONS, WEIGHTS),
        'mixture, twenty alike': _mixture(WATCH_FRACTIONS, (0.05,) * 20),
        'variance of earlier drives': _by_variance(1),
        'the same, 20 orders averaged': _by_variance(20),
    }
    for world, drives, (icc, rate) in itertools.product(
        WORLDS_OF_DRIVES[:2], (8, 20, 100, 400), ((0.1, 0.02), (0.1, 0.1), (0.7, 0.1))
    ):
        cell = ('stakes', world.name, drives, icc, rate)
        events, frames = world.draw(_generator(*cell), (worlds, drives), rate, icc)
        for name, wealth in ways.items():
            low, high = np.zeros(worlds), np.ones(worlds)
            for _ in range(20):
                middle = (low + high) / 2
                enough = wealth(events, frames, world.longest, middle) >= -math.log(ALPHA)
                low, high = np.where(enough, low, middle), np.where(enough, middle, high)
            offered = name == 'mixture, largest preferred'
            yield Row(*cell, name, offered, 'bound', float(high.mean()), math.nan, worlds)


def _mixture(fractions: Sequence[float], weights: Sequence[float]) -> Callable[..., Array]:
    def wealth(events: Array, frames: Array, longest: int, m: Array) -> Array:
        r = 1 / (1 - m[:, None])
        return log_wealth((r * (frames - events) - frames) / longest, fractions, weights)

    return wealth


def _by_variance(orders: int) -> Callable[..., Array]:
    """λ_i = √(2 log(1/α) / (v i log(1 + i))) ≤ .9 / (1 − m), v the variance before drive i."""

    def wealth(events: Array, frames: Array, longest: int, m: Array) -> Array:
        worlds, drives = events.shape
        generator, logs = np.random.default_rng(0), []
        i = np.arange(1, drives + 1)
        for order in range(orders):
            turn = generator.permutation(drives) if order else np.arange(drives)
            e, n = events[:, turn] / longest, frames[:, turn] / longest
            rate = (0.25 + np.cumsum(e, 1)) / (0.5 + np.cumsum(n, 1))
            before = np.concatenate([np.full((worlds, 1), 0.5), rate[:, :-1]], 1)
            variance = (0.25 + np.cumsum((e - before * n) ** 2, 1)) / (i + 1)
            variance = np.concatenate([np.full((worlds, 1), 0.25), variance[:, :-1]], 1)
            stake = np.sqrt(-2 * math.log(ALPHA) / (variance * i * np.log1p(i)))
            stake = np.minimum(stake, 0.9 / (1 - m[:, None]))
            logs.append(np.log1p(stake * (m[:, None] * n - e)).sum(1))
        return np.logaddexp.reduce(logs) - math.log(orders)

    return wealth


# ---------------------------------------------------------------- watched while driving


def watched() -> Iterator[Row]:
    """Yield false alarms in 300 drives at the certified bound itself, and delays beyond it."""
    drives, compared, alpha = 300, 50, 0.01
    longest = {'equal': compared, 'unequal': 4 * compared}
    for lengths, icc, bound in itertools.product(longest, ICCS, (0.05, 0.1)):
        cell = ('watched', f'{lengths} drives', drives, icc, bound)
        generator = _generator(*cell)
        frames = np.full((WORLDS, drives), compared)
        if lengths == 'unequal':
            drawn = np.round(generator.lognormal(math.log(compared), 0.8, frames.shape))
            frames = np.clip(drawn, 1, 4 * compared).astype(int)
        for factor in (1, 2, 3):
            own = own_rates(generator, factor * bound, icc, frames.shape)
            events = generator.binomial(frames, own)
            terms = (events - bound * frames) / (bound * longest[lengths])
            alarms = _paths(terms, WATCH_FRACTIONS) >= -math.log(alpha)
            if factor == 1:
                wrong = float(alarms.any(1).mean())
                yield Row(*cell, 'by drives', True, 'wrong', wrong, alpha, WORLDS)
                per_frame = _frame_bets(events, frames, bound) >= -math.log(alpha)
                wrong = float(per_frame.any(1).mean())
                yield Row(*cell, 'by frames', False, 'wrong', wrong, alpha, WORLDS)
                continue
            when = np.where(alarms.any(1), alarms.argmax(1) + 1.0, np.inf)
            name = f'by drives, {factor} × the bound'
            found = float(alarms.any(1).mean())
            yield Row(*cell, name, True, 'power', found, math.nan, WORLDS)
            yield Row(*cell, name, True, 'delay', float(np.median(when)), math.nan, WORLDS)


def _frame_bets(events: Array, frames: Array, bound: float) -> Array:
    """Return (worlds, drives) log wealth of bets on single frames, looked at after each drive."""
    paths = np.full(events.shape, -np.inf)
    for c in WATCH_FRACTIONS:
        logs = events * math.log1p(c * (1 - bound) / bound) + (frames - events) * math.log1p(-c)
        np.logaddexp(paths, np.cumsum(logs, 1) - math.log(len(WATCH_FRACTIONS)), out=paths)
    return paths


# ---------------------------------------------------------------- prune potential

OBJECTS = 20
CORRUPTIONS = ('clean', 'noise', 'blur', 'dark')


def _differences(generator: Generator, layouts: int, loss: float, kind: str) -> Array:
    """Return (layouts,) differences of the shares of objects missed, of mean `loss`."""
    if kind == 'collapse':  # a few layouts are lost altogether, all others are as before
        return (generator.random(layouts) < loss).astype(float)
    dense, found_again = 0.1, 0.1  # missed by the dense net; of those found by the member
    missed = generator.binomial(OBJECTS, dense, layouts)
    lost = (loss + found_again * dense) / (1 - dense)
    icc = 0.3 if kind == 'alike' else 0.0
    new = generator.binomial(OBJECTS - missed, own_rates(generator, lost, icc, (layouts,)))
    return (new - generator.binomial(missed, found_again)) / OBJECTS


def potential(
    part: str = 'prune potential',
    confidence: float = 1 - ALPHA,
    sizes: Sequence[int] = (50, 100, 200),
) -> Iterator[Row]:
    """Yield wrong certifications where the loss is the margin itself, and power below it."""
    worlds = 600
    for kind, layouts, margin in itertools.product(
        ('independent', 'alike', 'collapse'), sizes, (0.05, 0.1)
    ):
        # Under each corruption the first `sound` members lose nothing, all others the margin.
        cell = (part, f'objects {kind}', layouts, 0.3 * (kind == 'alike'), margin)
        generator = _generator(*cell)
        for name, sound in (
            ('all lose the margin', (0, 0, 0, 0)),
            ('half of them do', (2, 1, 1, 0)),
        ):
            wrong = 0
            for _ in range(worlds):
                found = certify_potential(
                    {
                        corruption: [
                            _differences(generator, layouts, margin * (j >= good), kind)
                            for j in range(3)
                        ]
                        for corruption, good in zip(CORRUPTIONS, sound, strict=True)
                    },
                    margin=margin,
                    confidence=confidence,
                )
                pairs = zip(found.values(), sound, strict=True)
                wrong += any(each.certified > good for each, good in pairs)
            yield Row(*cell, name, True, 'wrong', wrong / worlds, 1 - confidence, worlds)
        if kind == 'collapse':
            continue
        for loss in (0.0, 0.25 * margin, 0.5 * margin):
            certified = [
                certify_potential(
                    {
                        corruption: [_differences(generator, layouts, loss, kind) for _ in range(3)]
                        for corruption in CORRUPTIONS
                    },
                    margin=margin,
                    confidence=confidence,
                )
                for _ in range(worlds // 3)
            ]
            value = float(np.mean([[p.certified / 3 for p in w.values()] for w in certified]))
            name = f'all lose {loss / margin:g} × the margin'
            yield Row(*cell, name, True, 'power', value, math.nan, worlds // 3)


# ---------------------------------------------------------------- methods over seeds and images

IMAGES = 1000
# Standard deviations: of what a method makes of an image, of a seed, of one net on one image. An
# image has one of ±2 about 2, and a net is right where the sum is above 0.
_NETWORKS = {
    'images decide': (1.0, 0.0, 0.3),
    'images and seeds': (0.5, 0.03, 0.5),
    'seeds decide': (0.0, 0.2, 1.0),
    'neither': (0.0, 0.0, 1.0),
}


def methods_compared() -> Iterator[Row]:
    """Yield how often two methods that are equally good, over all seeds and images, seem not to."""
    ways: dict[str, Callable[[Array, Generator], tuple[float, float]]] = {
        'seeds and images': lambda d, _: _interval_of(crossed_difference(d, np.zeros_like(d))),
        'seeds alone': lambda d, _: _interval_of(paired_difference(d.mean(1), np.zeros(len(d)))),
        'seeds and images, resampled': _pigeonhole,
    }
    worlds = 1000
    for (kind, spreads), seeds in itertools.product(_NETWORKS.items(), (2, 3, 5, 10)):
        cell = ('methods compared', kind, seeds, 0.0, 0.0)
        generator, found = _generator(*cell), {name: [] for name in ways}
        for _ in range(worlds):
            image = generator.normal(2, 2, IMAGES)
            first, second = (_right(generator, image, seeds, *spreads) for _ in range(2))
            for name, interval in ways.items():
                found[name].append(interval(first - second, generator))
        for name, intervals in found.items():
            offered = name == 'seeds and images'
            yield _missed(cell, name, offered, 0.0, intervals, worlds)
            half = float(np.mean([(high - low) / 2 for low, high in intervals]))
            yield Row(*cell, name, offered, 'bound', half, math.nan, worlds)


def _right(
    generator: Generator, image: Array, seeds: int, taste: float, seed: float, noise: float
) -> Array:
    """Return (seeds, images), 1 where a network of one method is right."""
    level = image + taste * generator.standard_normal(len(image))
    level = level + seed * generator.standard_normal((seeds, 1))
    return (level + noise * generator.standard_normal((seeds, len(image))) > 0).astype(float)


def _interval_of(difference: PairedDifference) -> tuple[float, float]:
    return difference.low, difference.high


def _pigeonhole(differences: Array, generator: Generator) -> tuple[float, float]:
    """Percentiles of means over resampled seeds and resampled images (Owen 2007)."""
    seeds, images = (_resampling(generator, n) for n in differences.shape)
    means = ((seeds @ differences) * images).sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _resampling(generator: Generator, n: int, resamples: int = 200) -> Array:
    """Return (resamples, n) weights, how often each is drawn of n."""
    drawn = generator.integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * resamples).reshape(resamples, n) / n


# ---------------------------------------------------------------- medians and K

_SHAPES: dict[str, Callable[[Generator, Sequence[int]], Array]] = {
    'normal': lambda g, shape: g.standard_normal(tuple(shape)),
    'means of 30 exponential': lambda g, shape: g.exponential(size=(*shape, 30)).mean(-1),
    'log-normal': lambda g, shape: g.lognormal(0, 1, tuple(shape)),
}


def medians() -> Iterator[Row]:
    """Yield intervals of the median and the mean of few runs."""
    worlds = 2000
    truths = {
        'normal': (0.0, 0.0),
        'means of 30 exponential': (float(stats.gamma.median(30) / 30), 1.0),
        'log-normal': (1.0, math.exp(0.5)),
    }
    for (shape, draw), runs in itertools.product(_SHAPES.items(), (5, 10, 20)):
        cell = ('median of runs', shape, runs, 0.0, 0.0)
        samples = draw(_generator(*cell), (worlds, runs))
        median, mean = truths[shape]
        yield _missed(cell, 'median: resampled', False, median, map(_resampled, samples), worlds)
        if runs >= values_needed():
            found = map(median_interval, samples)
            yield _missed(cell, 'median: order statistics', True, median, found, worlds)
        yield _missed(cell, 'mean: resampled', False, mean, map(_resampled_mean, samples), worlds)
        nearly_normal = shape != 'log-normal'
        found = map(mean_interval, samples)
        yield _missed(cell, "mean: Student's t", nearly_normal, mean, found, worlds)


def rounds_of_runs() -> Iterator[Row]:
    """Yield intervals from rounds whose runs resemble each other."""
    for rounds in (6, 10, 20):
        cell = ('median of rounds', '20 runs a round', rounds, 0.5, 0.0)
        generator = _generator(*cell)
        shared = generator.standard_normal((400, rounds, 1))
        samples = shared + generator.standard_normal((400, rounds, 20))
        yield _missed(cell, 'median: resampled', False, 0, map(_resampled, samples), 400)
        yield _missed(cell, 'median: order statistics', True, 0, map(median_interval, samples), 400)
        yield _missed(cell, "mean: Student's t", True, 0, map(mean_interval, samples), 400)


def _resampled(sample: Array) -> tuple[float, float]:
    return bootstrap_percentiles(sample.ravel(), (50,))[0]


def _resampled_mean(sample: Array) -> tuple[float, float]:
    drawn = np.random.default_rng(0).integers(0, len(sample), (1000, len(sample)))
    low, high = np.percentile(sample[drawn].mean(1), [2.5, 97.5])
    return float(low), float(high)


def _missed(
    cell: tuple[str, str, int, float, float],
    name: str,
    offered: bool,
    truth: float,
    intervals: Iterable[tuple[float, float]],
    worlds: int,
) -> Row:
    wrong = float(np.mean([not low <= truth <= high for low, high in intervals]))
    return Row(*cell, name, offered, 'wrong', wrong, ALPHA, worlds)


def factor() -> Iterator[Row]:
    """Yield how many new images exceed K-fold sensitivities: K conformal, and K = 1."""
    worlds, channels, delta = 1000, 64, 0.1
    for times in (1, 4, 8):
        images = times * (images_needed(delta) + 1) - 1
        cell = ('conformal K', '64 channels, gamma', images, 0.0, delta)
        generator = _generator(*cell)
        shares: dict[str, list[float]] = {'conformal': [], 'K = 1': []}
        for _ in range(worlds):
            scale = generator.gamma(2.0, size=channels)
            first, second, new = (
                generator.gamma(1.5, size=(n, channels)) * scale for n in (128, images, 1000)
            )
            measured = first.max(0)
            K = conformal_factor(largest_ratios(second, measured), delta)
            ratios = largest_ratios(new, measured)
            shares['conformal'].append(float((ratios > K).mean()))
            shares['K = 1'].append(float((ratios > 1).mean()))
        for name, values in shares.items():
            exceeding, offered = float(np.mean(values)), name == 'conformal'
            # The statement is of one new image: worlds × images are not independent.
            yield Row(*cell, name, offered, 'wrong', exceeding, delta / 2, worlds)
            above = float(np.mean(np.array(values) > delta))
            yield Row(*cell, f'{name}, more than δ', False, 'wrong', above, 0.05, worlds)


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    'one bound': one_bound,
    'four slices': slices,
    'three kinds': kinds,
    'best of five': selection,
    'looked at again': looks,
    'forecast': forecast,
    'stakes': stakes,
    'watched': watched,
    'prune potential': potential,
    'stricter potential': functools.partial(
        potential, 'stricter potential', 0.999, (100, 200, 400)
    ),
    'methods compared': methods_compared,
    'median of runs': medians,
    'median of rounds': rounds_of_runs,
    'conformal K': factor,
}


# ---------------------------------------------------------------- results


def simulate(path: Path) -> list[Row]:
    """Run the parts that the CSV lacks, writing it after each; return all rows."""
    rows = read(path)
    done = {row.part for row in rows}
    for name, part in PARTS.items():
        if name in done:
            continue
        start = time.process_time()
        rows += part()
        write(path, rows)
        print(f'{name}: {time.process_time() - start:.0f} CPU s', flush=True)
    return read(path)


def main() -> None:
    """Simulate what is missing and print the tables and the defects."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--table', action='store_true', help='simulate nothing')
    parser.add_argument('--results', type=Path, default=RESULTS)
    args = parser.parse_args()
    rows = read(args.results) if args.table else simulate(args.results)
    print(as_tables(rows))
    for row in rows:
        if row.is_defect:
            print(f'DEFECT: {row}')


if __name__ == '__main__':
    main()
