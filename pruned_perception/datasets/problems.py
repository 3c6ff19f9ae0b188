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

"""What happens to what is wrong with a data set: raised at once, mended if asked for, or listed."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pruned_perception.datasets.errors import KINDS, REPAIRS, DataError


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, naming file and annotation, and by what it was mended, if it was."""

    kind: str
    text: str
    repair: str | None


@dataclass
class Problems:
    """How a reader deals with what is wrong.

    By default the first problem is raised. With `listing`, all are kept in `found` and what is
    broken is left out; whoever reads so looks at `unmended` before the data is used.
    """

    repairs: frozenset[str] = frozenset()
    listing: bool = False
    found: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is no problem, but should be known: files that are not used."""

    def __post_init__(self) -> None:
        for each in self.repairs:
            if each not in REPAIRS:
                raise DataError(f'unknown repair {each!r}; there is {", ".join(REPAIRS)}')

    def mend(self, error: DataError) -> str | None:
        """Return the repair to make, if one is asked for; None: leave out what is broken.

        Raises `error` where it is neither to be mended nor listed.
        """
        repair = next((each for each in KINDS[error.kind][1] if each in self.repairs), None)
        if repair is None and not self.listing:
            raise error
        self.found.append(Problem(error.kind, error.text, repair))
        return repair

    @contextlib.contextmanager
    def each(self) -> Iterator[None]:
        """Around the reading of one thing, which is left out where it is broken."""
        try:
            yield
        except DataError as error:
            self.mend(error)

    @property
    def unmended(self) -> list[Problem]:
        """What is still wrong."""
        return [each for each in self.found if each.repair is None]


def counts(problems: Iterable[Problem]) -> list[tuple[str, int, str | None]]:
    """Return (kind, number, repair that was made or None), in the order of KINDS."""
    counted = Counter((each.kind, each.repair) for each in problems)
    order = list(KINDS)
    pairs = sorted(counted, key=lambda each: (order.index(each[0]), each[1] or ''))
    return [(kind, counted[kind, repair], repair) for kind, repair in pairs]
