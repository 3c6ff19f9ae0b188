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

"""The job in a family's folder: what was asked for, and what is done already.

Whatever takes long is kept below `.optimize` as soon as it is there, so that the same command goes
on from where it was; another one is refused there.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pruned_perception._io import FolderError, errors_of_writing, locked, read_json, write_json
from pruned_perception.errors import UserError
from pruned_perception.optimize.frames import FRAMES
from pruned_perception.optimize.probing import Target

WORK = '.optimize'
MINUTES = {'quick': 3.0, 'standard': 25.0, 'thorough': 90.0, 'compact': 90.0}
"""Of work that teaching a member takes by default, by recipe."""
COSTLY = ('members', 'latency.json')
"""What is there once the long part has begun."""
LOOKED_AT = 'sight.json'
"""What is there once detector and frames were taken; refused before, a job leaves no folder."""
ROOM = 200 * 2**20
"""Bytes that must be free beside what frames take."""

Report = Callable[[str, float, str], None]
"""Told what goes on, the share of it that is done, and a remark."""


@dataclass(frozen=True)
class Settings:
    """What somebody asks for; see `cli.optimize` for the words."""

    detector: str
    sources: tuple[str, ...]
    family: Path
    targets: tuple[Target, ...]
    recipe: str = 'standard'
    minutes: float | None = None
    """Of teaching each member; by default the recipe's."""
    seed: int = 0
    topic: str | None = None
    frames: int = FRAMES
    round_to: int | None = None
    """Block of channels; by default the processor's."""
    ranks: bool = False
    """Make two layers of one, too, where that costs less."""
    names: tuple[str, ...] | None = None
    """Labels of a detector that is no bundle."""
    weights: Path | None = None
    described: Mapping[str, Any] = field(default_factory=dict)
    labels: Path | None = None
    """Annotated data set, for accuracy beside agreement."""
    training: str | None = None
    """`package.module:function`: the user's own training in place of the parent's teaching."""
    skip: frozenset[str] = frozenset()
    confidence: float = 0.95
    table: Path | None = None
    """Latency table of the machine that budgets in time are for; None: found by timing, here."""
    at_most: float | None = None
    """Bound that the certificate shall reach; refused beforehand where it cannot."""
    longest: tuple[int, int] | None = None
    """Frames and detections of the longest drive that the certificate speaks of."""
    force: bool = False
    """Go on though the parent sees next to nothing, or pruning is not expected to pay."""

    def __post_init__(self) -> None:
        if not self.targets and not self.in_8_bits:
            raise UserError('say how small or fast: --macs X, --speedup X or --budget-ms X')
        if len({target.name for target in self.targets}) < len(self.targets):
            raise UserError('budgets: the same one is there twice')
        if self.table is not None and all(each.unit == 'macs' for each in self.targets):
            raise UserError('--table goes with a budget in time: --budget-ms X or --speedup X')
        if self.recipe not in MINUTES:
            raise UserError(f'recipe {self.recipe!r}: there are {", ".join(MINUTES)}')
        if self.minutes is not None and not self.minutes > 0:
            raise UserError(f'--minutes {self.minutes:g}: must be > 0')
        if self.training is not None and 'recovery' in self.skip:
            raise UserError(f'--training {self.training}: --skip recovery leaves training out')

    @property
    def work(self) -> Path:
        """Folder of what is kept."""
        return self.family / WORK

    @property
    def teaching_minutes(self) -> float:
        """Of work for each member; 0 where recovery is skipped."""
        if 'recovery' in self.skip:
            return 0.0
        return MINUTES[self.recipe] if self.minutes is None else self.minutes

    @property
    def recipe_text(self) -> str:
        """Return the recipe, and what is asked for beside it."""
        return self.recipe + ', ranks' * self.ranks

    @property
    def in_8_bits(self) -> bool:
        """Whether INT8 members may join."""
        return 'int8' not in self.skip

    def identity(self) -> dict[str, Any]:
        """Return what another run must ask for, too, to be the same job; plain data."""
        return {
            'detector': self.detector,
            'images': [str(Path(each).expanduser().absolute()) for each in self.sources],
            'budgets': [f'{each.unit} {each.value:g}' for each in self.targets],
            'recipe': self.recipe_text,
            'minutes': self.teaching_minutes,
            'seed': self.seed,
            'topic': self.topic,
            'frames': self.frames,
            'round to': self.round_to,
            'table': None if self.table is None else str(self.table.expanduser().absolute()),
            'names': None if self.names is None else list(self.names),
            'weights': None if self.weights is None else str(self.weights.absolute()),
            'description': _plain(self.described),
            'labels': None if self.labels is None else str(self.labels.expanduser().absolute()),
            'training': self.training,
            'skip': sorted(self.skip),
            'confidence': self.confidence,
            'at most': self.at_most,
            'longest': None if self.longest is None else list(self.longest),
        }


@contextlib.contextmanager
def claimed(settings: Settings) -> Iterator[None]:
    """Hold the folder for this job.

    Raises:
        FolderError: another process works there, or it holds something else.
    """
    family, work = settings.family, settings.work
    new = not family.exists()
    taken = not new and (not family.is_dir() or any(family.iterdir()))
    if taken and not work.exists():
        raise FolderError(
            f'{family}: is there already, and not of this command; choose a new folder'
        )
    with locked(work):
        try:
            _claim(settings)
            yield
        except UserError:
            if new and not (work / LOOKED_AT).exists():
                shutil.rmtree(family, ignore_errors=True)
            raise


def _claim(settings: Settings) -> None:
    """Write whose the folder is; raise FolderError where it is another job's that has begun."""
    family, work = settings.family, settings.work
    identity, file = settings.identity(), work / 'job.json'
    found = read_json(file) if file.is_file() else identity
    differing = [key for key in identity if found.get(key) != identity[key]]
    if differing and any((work / each).exists() for each in COSTLY):
        key = differing[0]
        raise FolderError(
            f'{family}: holds the work on another job ({key}: {found.get(key)} there, '
            f'{identity[key]} here); choose another folder, or delete this one'
        )
    if differing:  # it did not get far: refused, or only foretold
        _forget(work)
    if not file.is_file():
        check_room(family, ROOM)
        write_json(file, identity)


def _forget(work: Path) -> None:
    """Delete what was done before any member was begun."""
    with errors_of_writing(work, FolderError):
        for each in work.iterdir():
            if each.is_dir():
                shutil.rmtree(each)
            elif each.name != '.lock':  # which this process holds
                each.unlink()


def check_room(folder: Path, needed: int) -> None:
    """Raise FolderError where the disk has not that many bytes free."""
    with errors_of_writing(folder, FolderError):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise FolderError(
            f'{folder}: {free / 2**20:,.0f} MiB are free on its disk, about '
            f'{needed / 2**20:,.0f} MiB are needed; make room, or choose another folder'
        )


def with_time_left(report: Report, clock: Callable[[], float] = time.monotonic) -> Report:
    """Return a report that adds to its remarks how long what goes on will take yet.

    >>> times = iter([0.0, 30.0])
    >>> report = with_time_left(lambda *said: print(*said), clock=lambda: next(times))
    >>> report('teaching', 0.5, 'step 50'); report('teaching', 0.6, 'step 60')
    teaching 0.5 step 50
    teaching 0.6 step 60, 2 min left
    """
    begun: dict[str, tuple[float, float]] = {}

    def told(title: str, share: float, remark: str) -> None:
        now = clock()
        start, first = begun.setdefault(title, (now, share))
        if share > first and now > start:
            seconds = (now - start) * (1 - share) / (share - first)
            left = f'{seconds / 60:.0f} min left' if seconds >= 90 else f'{seconds:.0f} s left'
            remark = f'{remark}, {left}' if remark else left
        report(title, share, remark)

    return told


def kept(file: Path, make: Callable[[], Any]) -> Any:
    """Return plain data from a file; made, and written there, where it is not there yet."""
    if file.is_file():
        return read_json(file)
    write_json(file, make())
    return read_json(file)  # as it will be read the next time: tuples are lists


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return value
