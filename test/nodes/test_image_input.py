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

"""The image subscription's reliability."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from pruned_perception.nodes.image_input import choose_reliability

RELIABLE, BEST_EFFORT = 'reliable', 'best_effort'


@pytest.mark.parametrize(
    ('setting', 'offered', 'present', 'chosen'),
    [
        ('auto', [], RELIABLE, RELIABLE),
        ('auto', [], BEST_EFFORT, BEST_EFFORT),
        ('auto', [RELIABLE], BEST_EFFORT, RELIABLE),
        ('auto', [BEST_EFFORT], RELIABLE, BEST_EFFORT),
        ('auto', [RELIABLE, BEST_EFFORT], RELIABLE, BEST_EFFORT),
        ('reliable', [BEST_EFFORT], RELIABLE, RELIABLE),
        ('best_effort', [RELIABLE], BEST_EFFORT, BEST_EFFORT),
    ],
)
def test_auto_follows_the_publishers(
    setting: str, offered: list[str], present: str, chosen: str
) -> None:
    assert choose_reliability(setting, offered, present) == chosen
