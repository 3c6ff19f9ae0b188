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

"""Whether a family keeps its latency budget while load comes and goes, beside an echo node.

A round runs some nodes in turns, each on as long a series of frames: the family under the budget;
its most accurate, its dense and its fastest member, each alone; and the echo node, which shows what
any node would miss on this machine. In the second third of each series busy processes run.
A frame misses the budget where it has no detections, or none in time; the denominator is all frames
that the camera sent.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pruned_perception.benchmark.camera import camera_command
from pruned_perception.benchmark.children import Child, Children
from pruned_perception.benchmark.environment import environment
from pruned_perception.benchmark.overhead import ECHO, PERCEPTION
from pruned_perception.benchmark.series import Series, run_series, start_load
from pruned_perception.benchmark.session import Session, private_domain, ros_session
from pruned_perception.bundle import load_family, resolve_model
from pruned_perception.nodes import transport

WARM_UP_S = 1.0
SETTLING_S = 2.0
"""After a change of load, in which a family may miss what it likes."""
RETURN_S = 3.0
ALLOWANCE = 0.01
"""Of the miss rate under load, above the echo node's."""
MOST_SWITCHES = 2


@dataclass(frozen=True)
class Setup:
    """What is run: three phases of `seconds` each, without, with and without load again."""

    model: str
    budget_ms: float = 30.0
    load: int = 2
    rounds: int = 3
    seconds: float = 8.0
    rate: float = 30.0
    threads: int = 1


@dataclass(frozen=True)
class Run:
    """One node under the load; rates are shares of the frames sent, None where none was."""

    node: str
    """`family`, `echo`, or the member that ran alone."""
    missed_idle: float | None
    missed_settling: float | None
    """In the first `SETTLING_S` under load."""
    missed_loaded: float | None
    """After that, until the load's end."""
    missed_after: float | None
    """From `RETURN_S` after the load's end on."""
    switches_loaded: int
    switches_after: int
    members: list[tuple[float, str]]
    """Seconds since the load came, and the member that made the results from then on."""
    returned_s: float | None
    """From the load's end until the member of before made the results; None: never, or not left."""
    left: bool
    """Whether the load made the family change its member."""


@dataclass(frozen=True)
class Verdict:
    """What the contract asks for, over all rounds."""

    kept: bool
    """The miss rate under load is at most the echo node's plus `ALLOWANCE`, in the median."""
    returned: bool
    """Each time within `RETURN_S`."""
    calm: bool
    """At most `MOST_SWITCHES` per change of load, each time."""
    dense_misses: float
    """Median miss rate of the dense member under load: below one half, the load was too light."""
    family_misses: float
    echo_misses: float


def measure(setup: Setup, on_run: Callable[[Run], None] = lambda _: None) -> dict[str, Any]:
    """Run all rounds, calling `on_run` after each node; return the result as JSON values."""
    family = load_family(resolve_model(setup.model))
    best, dense = family.by_accuracy[0].name, family.members[0].name
    os.environ.update(private_domain())
    os.environ.update(transport.environment(os.environ))
    alone = dict.fromkeys((best, dense, family.in_float[-1].name))
    nodes: dict[str, dict[str, Any]] = {
        'family': {'model': setup.model, 'latency_budget_ms': setup.budget_ms},
        'echo': {},
        **{name: {'model': setup.model, 'member': name} for name in alone},
    }
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder, ros_session('contract_benchmark') as session:
        for number in range(setup.rounds):
            names = list(nodes)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                given: dict[str, Any] = {'threads': setup.threads} if name != 'echo' else {}
                parameters = {**nodes[name], **given}
                where = Path(folder), f'/contract_{len(runs)}'
                runs.append(_run(session, name, parameters, setup, *where))
                on_run(runs[-1])
    return {
        'benchmark': 'contract',
        'clock': 'system',
        'environment': environment(),
        'configuration': asdict(setup),
        'models': {each.name: each.sha256 for each in family.members},
        'runs': [asdict(run) for run in runs],
        'verdict': asdict(judge(runs, dense)),
    }


def judge(runs: Sequence[Run], dense: str) -> Verdict:
    """Return whether the family kept its budget, as far as any node could."""

    def median(name: str) -> float:
        rates = [run.missed_loaded for run in runs if run.node == name]
        return float(np.median([rate for rate in rates if rate is not None]))

    family = [run for run in runs if run.node == 'family']
    returns = [run.returned_s for run in family if run.left]
    return Verdict(
        kept=median('family') <= median('echo') + ALLOWANCE,
        returned=all(each is not None and each <= RETURN_S for each in returns),
        calm=all(max(run.switches_loaded, run.switches_after) <= MOST_SWITCHES for run in family),
        dense_misses=median(dense),
        family_misses=median('family'),
        echo_misses=median('echo'),
    )


def summarise(series: Series, name: str, budget_ms: float, on: int, off: int) -> Run:
    """Return what a series shows: load from `on` to `off`, nanoseconds of the stamps' clock."""
    second = 1_000_000_000
    changes = [each for each in series.models if each[0]]
    before = [model for stamp, model in changes if stamp < on]
    loaded = [each for each in changes if on <= each[0] < off]
    after = [each for each in changes if each[0] >= off]
    usual = before[-1] if before else ''
    left = bool(loaded) and loaded[-1][1] != usual
    back = [stamp for stamp, model in after if model == usual]
    return Run(
        node=name,
        missed_idle=series.missed(budget_ms, series.sent[0] + round(WARM_UP_S * second), on),
        missed_settling=series.missed(budget_ms, on, on + round(SETTLING_S * second)),
        missed_loaded=series.missed(budget_ms, on + round(SETTLING_S * second), off),
        missed_after=series.missed(budget_ms, off + round(RETURN_S * second)),
        switches_loaded=len(loaded),
        switches_after=len(after),
        members=[((stamp - on) / second, model) for stamp, model in (*changes,)],
        returned_s=(back[-1] - off) / second if left and back else None,
        left=left,
    )


def _run(
    session: Session,
    name: str,
    parameters: dict[str, Any],
    setup: Setup,
    folder: Path,
    namespace: str,
) -> Run:
    moments = []

    def with_load(session: Session, children: Children, _node: Child) -> None:
        session.spin_for(setup.seconds)
        moments.append(time.time_ns())
        busy = start_load(children, setup.load)
        session.spin_for(setup.seconds)
        children.stop(*busy)
        moments.append(time.time_ns())

    series = run_series(
        session,
        ECHO if name == 'echo' else PERCEPTION,
        parameters,
        camera_command(
            f'{namespace}/image_raw',
            rate=setup.rate,
            frames=round(3 * setup.seconds * setup.rate),
        ),
        folder=folder,
        namespace=namespace,
        seconds=3 * setup.seconds,
        started=with_load,
    )
    return summarise(series, name, setup.budget_ms, *moments)
