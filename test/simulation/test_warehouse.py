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

from __future__ import annotations

import numpy as np
import pytest

from pruned_perception.simulation import catalogue, warehouse
from pruned_perception.simulation.randomise import ViewMaker
from pruned_perception.simulation.robot import corridor
from pruned_perception.simulation.scene import LABELS, extents, footprint
from pruned_perception.simulation.splits import SPLITS
from pruned_perception.simulation.warehouse import FloorPlan, placed

# Height in metres within which every individual of a label must lie.
HEIGHTS = {
    'person': (1.5, 2.1),
    'box': (0.2, 0.65),
    'cone': (0.4, 0.8),
    'barrel': (0.7, 1.05),
    'pallet': (0.1, 0.2),
    'chair': (0.8, 1.2),
    'fire_extinguisher': (0.4, 0.62),
    'barrier': (0.75, 1.15),
}


@pytest.mark.parametrize('label', LABELS)
def test_every_label_stands_on_the_floor_at_its_natural_height(label: str) -> None:
    for seed in range(20):
        split = SPLITS['train']
        item = catalogue.labelled(label, 'it', split, split.rng(seed))
        low, high = extents(item)
        assert low[2] == pytest.approx(0.0, abs=0.03)
        assert HEIGHTS[label][0] <= high[2] <= HEIGHTS[label][1]
        assert item.label == label


@pytest.mark.parametrize('kind', sorted(catalogue.SCENERY))
def test_scenery_stands_on_the_floor(kind: str) -> None:
    split = SPLITS['test']
    from pruned_perception.simulation.scene import SceneObject

    item = SceneObject('it', catalogue.SCENERY[kind](split, split.rng(3)))
    assert extents(item)[0][2] == pytest.approx(0.0, abs=0.03)


def test_same_seed_same_hall_and_other_seed_other_hall() -> None:
    split = SPLITS['train']
    hall = warehouse.build(split, 4, 2)
    assert hall == warehouse.build(split, 4, 2)
    assert hall != warehouse.build(split, 4, 3)
    assert hall != warehouse.build(split, 5, 2)
    assert hall.objects != warehouse.build(SPLITS['test'], 4, 2).objects


def test_objects_touch_neither_each_other_nor_scenery_nor_walls() -> None:
    for layout in range(5):
        hall = warehouse.build(SPLITS['validation'], 0, layout)
        plan = FloorPlan(hall.size)
        for item in (*hall.structures[1:], *hall.objects):
            x, y, _ = item.pose.position
            spot = placed(footprint(item), x, y, item.pose.rotation[2])
            assert plan.free(spot, margin=0.0), item.name
            plan.take(spot)


def test_the_corridor_stays_free() -> None:
    hall = warehouse.build(SPLITS['test'], 1, 0, stock=60, keep_free=corridor)
    plan = warehouse.floor_plan(hall)
    for item in hall.objects:
        x, y, _ = item.pose.position
        plan.take(placed(footprint(item), x, y, item.pose.rotation[2]))
    assert plan.free(corridor(hall.size), margin=0.0)
    assert {item.label for item in hall.objects} == set(LABELS)


def test_views_set_objects_up_before_the_camera_without_overlap() -> None:
    split = SPLITS['train']
    hall = warehouse.build(split, 0, 0)
    maker = ViewMaker(hall, split)
    rng = split.rng(0, 0, 1)
    counts = []
    for _ in range(20):
        view = maker.draw(rng)
        plan = warehouse.floor_plan(hall)
        x, y, _ = view.eye.position
        shown = [item for item in hall.objects if view.poses[item.name] is not None]
        for item in shown:
            pose = view.poses[item.name]
            assert pose is not None
            spot = placed(footprint(item), *pose.position[:2], pose.rotation[2])
            assert plan.free(spot, margin=0.0)
            plan.take(spot)
        assert plan.free(np.array([[x, y, 0.2]]), margin=0.0), 'the camera is inside something'
        counts.append(len(shown))
    assert 4 <= np.mean(counts) <= 12
