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

"""Evidence against a certificate, gathered drive by drive on the robot.

A certificate says that a rate (frames changed, objects missed) is at most b: E[e − b n] ≤ 0 for a
new drive with e events among n. Bet against it: whoever stakes the share c of all they own on the
term t = (e − b n) / (b · longest) ≥ −1 owns (1 + c t) times as much afterwards and, if the
certificate holds, gains nothing on average, whatever the past drives were. What they own is then a
non-negative supermartingale, and it ever reaches 1/α with probability α at most (Ville 1939): the
alarm may be looked at after every drive, for ever, and is false for a share α of robots at most.

How much to stake depends on a rate that nobody knows; the evidence is therefore the mean over
twenty shares, which is such a martingale, too. The unit is the drive: frames of one drive resemble
each other, and bets on single frames would alarm falsely.

Source of the method: Waudby-Smith and Ramdas, Estimating means of bounded random variables by
betting (JRSS B 2024).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pruned_perception.errors import UserError

FRACTIONS = tuple((j + 0.5) / 20 for j in range(20))
"""Shares c that are staked; λ = c / b in (0, 1/b)."""
ALPHA = 0.01
"""Probability of a false alarm, ever."""
_VERSION = 1
_MILLION = math.log(1e6)
_LARGEST_EXPONENT = 700.0  # exp of more is no finite number


def log_wealth(
    terms: ArrayLike, fractions: Sequence[float], weights: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """Return log Σ_j w_j Π_i (1 + c_j t_i), what bets on the terms are worth; start is log 1.

    Where E[t_i | past] ≤ 0 for each i, it reaches log(1/α) with probability α at most.

    >>> round(float(np.exp(log_wealth([1.0, 1.0, -0.5], (0.5,)))), 4)
    1.6875

    Args:
        terms: (…, n) numbers ≥ −1.
        fractions: c_j in [0, 1).
        weights: w_j > 0 with sum 1; equal by default.
    """
    t = np.asarray(terms, float)
    shares = [1 / len(fractions)] * len(fractions) if weights is None else weights
    logs = np.stack(
        [math.log(w) + np.log1p(c * t).sum(-1) for c, w in zip(fractions, shares, strict=True)]
    )
    return _log_sum(logs)


def longest_sample(longest: int, share: float, together: int = 1) -> int:
    """Return how many of a longest drive's frames a random share holds at most, practically.

    Exceeded by one of such drives in a million at most, by Bernstein's inequality.

    >>> longest_sample(18_000, 0.02)
    464

    Args:
        longest: most that is counted in a drive, such as its frames.
        share: of the frames that are drawn.
        together: most that is drawn or left out at once, such as the objects of a frame.

    Raises:
        UserError: no frame, or a share outside (0, 1].
    """
    if longest < 1 or not 0 < share <= 1:
        raise UserError(
            f'sample of a drive: longest = {longest} frames, share = {share:g}; must be ≥ 1 and in '
            '(0, 1]'
        )
    mean = longest * share
    spread = math.sqrt(2 * mean * (1 - share) * together * _MILLION) + together * _MILLION / 3
    return min(longest, math.ceil(mean + spread))


@dataclass(frozen=True)
class DriveEvidence:
    """What all drives so far say against one certificate: small plain data, kept across drives.

    Start with the first four fields, then `evidence = evidence.after_drive(events, counts)`.

    >>> evidence = DriveEvidence('3f2a', bound=0.05, longest=200)
    >>> for changed in (12, 16, 30):
    ...     evidence = evidence.after_drive(changed, 200)
    >>> evidence.to_text()
    'evidence against the certificate: 3.0 of 100 needed (3 drives, 9.7% of 600, certified 5.0%)'
    """

    certificate: str
    """What tells this certificate from all others: its SHA-256."""
    bound: float
    """b in (0, 1), the certified bound."""
    longest: int
    """Longest drive that the certificate speaks of, in what is counted (see `longest_sample`)."""
    alpha: float = ALPHA
    """Probability of a false alarm, ever."""
    drives: int = 0
    events: int = 0
    counts: int = 0
    logs: tuple[float, ...] = (0.0,) * len(FRACTIONS)
    """log Π (1 + c_j t) of each share c_j."""
    highest: float = 0.0
    """Largest logarithm of the evidence so far: an alarm stays."""

    def __post_init__(self) -> None:
        if not 0 < self.bound < 1:
            raise UserError(
                f'bound of the certificate: {self.bound}; only one in (0, 1) can be contradicted'
            )
        if self.longest < 1:
            raise UserError(f'longest drive: {self.longest}; must be ≥ 1')
        if not 0 < self.alpha < 1:
            raise UserError(f'probability of a false alarm: {self.alpha}; must be in (0, 1)')

    def after_drive(self, events: int, counts: int) -> DriveEvidence:
        """Return the evidence after one more whole drive; one without counts changes nothing.

        A drive longer than declared counts as one of the declared length with its share of
        events: the certificate does not speak of it, but neither should it be overlooked.

        Args:
            events: changed frames (or missed objects) of those compared in this drive.
            counts: frames (or objects) compared.

        Raises:
            UserError: not 0 ≤ events ≤ counts, or not whole.
        """
        whole = 0 <= events <= counts < math.inf and events == int(events) and counts == int(counts)
        if not whole:
            raise UserError(
                f'a drive with {events} events of {counts}: must be whole, 0 ≤ events ≤ counts'
            )
        if counts == 0:
            return self
        term = (events - self.bound * counts) / (self.bound * max(counts, self.longest))
        logs = tuple(
            each + math.log1p(c * term) for each, c in zip(self.logs, FRACTIONS, strict=True)
        )
        return replace(
            self,
            drives=self.drives + 1,
            events=self.events + int(events),
            counts=self.counts + int(counts),
            logs=logs,
            highest=max(self.highest, _log_mean(logs)),
        )

    @property
    def log_value(self) -> float:
        """Logarithm of the evidence E as it stands now."""
        return _log_mean(self.logs)

    @property
    def value(self) -> float:
        """The evidence E as it stands now, at most e^700."""
        return math.exp(min(self.log_value, _LARGEST_EXPONENT))

    @property
    def needed(self) -> float:
        """The evidence that raises the alarm, 1/α."""
        return 1 / self.alpha

    @property
    def alarmed(self) -> bool:
        """Say whether the evidence has ever reached 1/α: the certificate is contradicted."""
        return self.highest >= -math.log(self.alpha)

    def to_text(self) -> str:
        """Return one line for a monitor."""
        rate = self.events / self.counts if self.counts else 0.0
        drives = f'{self.drives:,} drive' + 's' * (self.drives != 1)
        return (
            f'evidence against the certificate: {_brief(self.value)} of {_brief(self.needed)} '
            f'needed ({drives}, {rate:.1%} of {self.counts:,}, certified {self.bound:.1%})'
            + ('; ALARM: the certificate does not hold here' if self.alarmed else '')
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with a digest, by which an edited or damaged file is told."""
        data = {'version': _VERSION, **asdict(self), 'logs': list(self.logs)}
        return {**data, 'sha256': _digest(data)}

    def restore(self, data: Any) -> DriveEvidence:
        """Return what `to_dict` wrote, where it is of the same certificate, bound and α as this.

        Raises:
            UserError: not such data, edited, cut off, of another version or certificate.
        """
        way_out = 'move the file away to gather evidence anew'
        if not isinstance(data, Mapping) or data.get('version') != _VERSION:
            raise UserError(f'not evidence of version {_VERSION}: {way_out}')
        content = {key: value for key, value in data.items() if key != 'sha256'}
        names = {each.name for each in fields(self)}
        if content.keys() != {'version', *names} or data.get('sha256') != _digest(content):
            raise UserError(f'evidence was edited or is damaged: {way_out}')
        for name in ('certificate', 'bound', 'longest', 'alpha'):
            if content[name] != getattr(self, name):
                raise UserError(
                    f'evidence is of another test: {name} {content[name]}, here '
                    f'{getattr(self, name)}; {way_out}'
                )
        del content['version']
        return replace(self, **{**content, 'logs': tuple(content['logs'])})


def _digest(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _log_sum(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = logs.max(0)
    return largest + np.log(np.exp(logs - largest).sum(0))


def _log_mean(logs: Sequence[float]) -> float:
    return float(_log_sum(np.array(logs))) - math.log(len(logs))


def _brief(value: float) -> str:
    """Return two digits, rounded down: 99.9 of 100 is not an alarm."""
    if value >= 1e6:
        return f'{value:.0e}'
    step = 1 if value >= 10 else 0.1 if value >= 1 else 0.01
    return (
        f'{math.floor(value / step + 1e-9) * step:,.{0 if step == 1 else 1 if step == 0.1 else 2}f}'
    )
