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
