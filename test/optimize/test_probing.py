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

"""The search for the largest network that is fast enough."""

from __future__ import annotations

import doctest
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pruned_perception.errors import UserError
from pruned_perception.optimize import forecast, frames, job, probing
from pruned_perception.optimize.probing import Probe, Prober, Target


class Machine(Prober):
    """A machine on which a network takes 1 ms and 9 ms times its share of MACs."""

    def __init__(self):
        self.probed = []

    def plan(self, share):
        return SimpleNamespace(share=share)

    def smallest(self):
        return SimpleNamespace(share=0.1)

    def probe(self, plan):
        self.probed.append(plan.share)
        ms = 1 + 9 * plan.share
        return Probe(plan.share, round(1e9 * plan.share), 1, 1, ms, 10 / ms)


@pytest.mark.parametrize('target', [Target('ms', 4.0), Target('speedup', 2.5)])
def test_the_largest_network_that_meets_a_time_is_found_by_few_probes(target):
    machine = Machine()
    found = machine.find(target)
    assert found.meets(target)
    assert found.share == pytest.approx(1 / 3, rel=0.05)
    assert len(machine.probed) <= 7


def test_more_than_the_smallest_network_can_is_refused_with_what_is_reachable():
    with pytest.raises(UserError, match=r'takes 1\.90 ms, 5\.26× as fast'):
        Machine().find(Target('speedup', 6.0))


def test_a_share_of_macs_is_not_searched_for():
    machine = Machine()
    assert machine.find(Target('macs', 0.4)).share == 0.4
    assert machine.probed == [0.4]


def test_a_probe_meets_its_own_unit():
    probe = Probe(0.5, 1, 1, 1, ms=5.0, speedup=1.9)
    assert not probe.meets(Target('speedup', 2.0))
    assert replace(probe, speedup=2.0).meets(Target('speedup', 2.0))
    assert probe.meets(Target('ms', 5.0))


@pytest.mark.parametrize('module', [forecast, frames, job, probing])
def test_examples_in_the_documentation_hold(module):
    found = doctest.testmod(module)
    assert not found.failed
    assert found.attempted
