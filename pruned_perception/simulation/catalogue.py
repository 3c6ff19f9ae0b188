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

"""The things of a warehouse, each composed of primitives with random shape, size and colours.

A builder takes a split and a random generator and returns parts that stand on z = 0, front towards
x. The labelled ones are in `BUILDERS`, in the order of the labels; the others are scenery.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from pruned_perception.simulation import palette
from pruned_perception.simulation.palette import surface
from pruned_perception.simulation.scene import (
    LABELS,
    Box,
    Capsule,
    Cylinder,
    Ellipsoid,
    Frustum,
    Part,
    Pose,
    SceneObject,
    Surface,
    Vector,
    between,
)
from pruned_perception.simulation.splits import Split

Parts = tuple[Part, ...]
Builder = Callable[[Split, np.random.Generator], Parts]


def _box(size: Vector, look: Surface, position: Vector, rotation: Vector = (0, 0, 0)) -> Part:
    return Part(Box(size), look, Pose(position, rotation))


def _upright(radius: float, length: float, look: Surface, x: float, y: float, z: float) -> Part:
    """Return a vertical cylinder whose lower end is at x, y, z."""
    return Part(Cylinder(radius, length), look, Pose((x, y, z + length / 2)))


def _limb(start: Vector, end: Vector, radius: float, look: Surface) -> Part:
    length, pose = between(start, end)
    return Part(Capsule(radius, length), look, pose)


def person(split: Split, rng: np.random.Generator) -> Parts:
    """Stand or walk, in work clothes; often with a hi-vis vest, at times with a helmet."""
    height = rng.uniform(1.55, 1.95)
    build = rng.uniform(0.85, 1.2)
    skin = surface(split, rng, palette.SKIN)
    trousers = surface(split, rng, palette.DARK if rng.random() < 0.6 else palette.MUTED)
    shirt = surface(split, rng, palette.ANY if rng.random() < 0.6 else palette.MUTED)
    vest = rng.random() < 0.5
    reflector = Surface((0.85, 0.85, 0.85), emission=0.1)
    safety = palette.SAFETY_YELLOW if rng.random() < 0.6 else palette.SAFETY_ORANGE
    torso = surface(split, rng, safety) if vest else shirt
    hip, shoulder = 0.5 * height, 0.8 * height
    stride = rng.uniform(0.0, 0.35)
    parts = []
    for side in (-1, 1):
        y = side * 0.09 * build
        foot = (side * stride * 0.5, y, 0.08)
        parts.append(_limb((0, y, hip), foot, 0.075 * build, trousers))
        shoe = surface(split, rng, palette.DARK)
        parts.append(_box((0.27, 0.1, 0.08), shoe, (foot[0] + 0.06, y, 0.04)))
        swing = -side * stride * 0.5 + rng.uniform(-0.1, 0.1)
        start = (0.0, side * 0.22 * build, shoulder - 0.04)
        elbow = (swing * 0.4, side * (0.25 * build + rng.uniform(0, 0.06)), shoulder - 0.30)
        raised = rng.random() < 0.25
        reach = rng.uniform(0.12, 0.25)
        hand = (
            (elbow[0] + reach, elbow[1] * 0.8, elbow[2] + rng.uniform(-0.05, 0.2))
            if raised
            else (elbow[0] + swing * 0.5 + 0.05, elbow[1], elbow[2] - 0.26)
        )
        parts.append(_limb(start, elbow, 0.055 * build, shirt))
        parts.append(_limb(elbow, hand, 0.045 * build, shirt if rng.random() < 0.6 else skin))
        parts.append(Part(Ellipsoid((0.05, 0.045, 0.07)), skin, Pose(hand)))
    length = shoulder - hip
    middle = (0.0, 0.0, (hip + shoulder) / 2)
    parts.append(Part(Ellipsoid((0.15 * build, 0.21 * build, 0.62 * length)), torso, Pose(middle)))
    parts.append(_box((0.2 * build, 0.34 * build, 0.8 * length), torso, middle))
    if vest:
        for share in (0.3, 0.6):
            band = (0.24 * build, 0.40 * build, 0.05)
            parts.append(_box(band, reflector, (0, 0, hip + share * length)))
    head = height - 0.13
    parts.append(_upright(0.05, 0.12, skin, 0, 0, shoulder + 0.02))
    parts.append(Part(Ellipsoid((0.1, 0.08, 0.125)), skin, Pose((0, 0, head))))
    if rng.random() < 0.4:
        helmet = surface(split, rng, palette.ANY if rng.random() < 0.7 else palette.PALE)
        parts.append(Part(Ellipsoid((0.13, 0.11, 0.1)), helmet, Pose((0, 0, head + 0.06))))
        parts.append(_upright(0.14, 0.015, helmet, 0.02, 0, head + 0.045))
    else:
        hair = surface(split, rng, palette.DARK if rng.random() < 0.7 else palette.WOOD)
        parts.append(Part(Ellipsoid((0.1, 0.09, 0.1)), hair, Pose((-0.03, 0, head + 0.05))))
    return tuple(parts)


def box(split: Split, rng: np.random.Generator) -> Parts:
    """Stand a closed cardboard box on the floor, with tape and a shipping label."""
    x, y, z = rng.uniform(0.3, 0.75), rng.uniform(0.25, 0.6), rng.uniform(0.2, 0.6)
    look = surface(split, rng, palette.CARDBOARD if rng.random() < 0.85 else palette.PALE)
    tape = surface(split, rng, palette.PALE if rng.random() < 0.5 else palette.WOOD)
    note = surface(split, rng, palette.PALE)
    ink = surface(split, rng, palette.DARK)
    thin = 0.006
    side = rng.choice((-1, 1))
    u, v = rng.uniform(-0.2, 0.2) * x, rng.uniform(0.35, 0.65) * z
    return (
        _box((x, y, z), look, (0, 0, z / 2)),
        _box((x + thin, 0.06, thin), tape, (0, 0, z)),
        _box((thin, 0.06, 0.3 * z), tape, (x / 2, 0, 0.85 * z)),
        _box((thin, 0.06, 0.3 * z), tape, (-x / 2, 0, 0.85 * z)),
        _box((0.3 * x, thin, 0.3 * z), note, (u, side * y / 2, v)),
        _box((0.2 * x, thin, 0.06 * z), ink, (u, side * (y / 2 + thin / 2), v)),
        _box((thin, 0.3 * y, 0.25 * z), note, (side * x / 2, -0.25 * y, 0.4 * z)),
    )


def cone(split: Split, rng: np.random.Generator) -> Parts:
    """Stand a traffic cone on its square foot, with one or two pale bands."""
    height = rng.uniform(0.42, 0.78)
    bottom, top = rng.uniform(0.24, 0.32) * height, rng.uniform(0.05, 0.08) * height
    look = surface(split, rng, palette.SAFETY_ORANGE)
    foot = look if rng.random() < 0.6 else surface(split, rng, palette.DARK)
    band = surface(split, rng, palette.PALE)
    edge, thick = 2.5 * bottom, 0.035
    bands = ((0.45, 0.68),) if rng.random() < 0.5 else ((0.3, 0.48), (0.62, 0.78))

    def radius(share: float) -> float:
        return bottom + (top - bottom) * share

    parts = [_box((edge, edge, thick), foot, (0, 0, thick / 2))]
    cuts = [0.0, *(share for pair in bands for share in pair), 1.0]
    for index, (low, high) in enumerate(itertools.pairwise(cuts)):
        length = (high - low) * (height - thick)
        z = thick + (low + high) / 2 * (height - thick)
        shape = Frustum(radius(low), radius(high), length)
        parts.append(Part(shape, band if index % 2 else look, Pose((0, 0, z))))
    return tuple(parts)


def barrel(split: Split, rng: np.random.Generator) -> Parts:
    """Stand a drum with its rolling hoops, rims and bungs."""
    radius, height = rng.uniform(0.25, 0.32), rng.uniform(0.75, 0.98)
    look = surface(split, rng, palette.ANY if rng.random() < 0.75 else palette.DARK)
    lid = look if rng.random() < 0.6 else surface(split, rng, palette.METAL)
    bung = surface(split, rng, palette.DARK)
    parts = [
        _upright(radius, height, look, 0, 0, 0),
        _upright(0.9 * radius, 0.012, lid, 0, 0, height - 0.002),
        _upright(0.05, 0.03, bung, 0.5 * radius, 0, height),
        _upright(0.03, 0.03, bung, -0.6 * radius, 0, height),
    ]
    hoop = look if rng.random() < 0.7 else lid
    for share in (0.0, 0.33, 0.66, 0.97):
        parts.append(_upright(radius + 0.018, 0.03, hoop, 0, 0, share * height))
    if rng.random() < 0.5:
        band = surface(split, rng, palette.PALE if rng.random() < 0.5 else palette.ANY)
        parts.append(_upright(radius + 0.004, 0.25 * height, band, 0, 0, 0.38 * height))
    return tuple(parts)


def pallet(split: Split, rng: np.random.Generator) -> Parts:
    """Lay a pallet: boards above and below, nine blocks between."""
    x, y = rng.uniform(1.0, 1.25), rng.uniform(0.75, 1.0)
    ranges = palette.WOOD if rng.random() < 0.8 else palette.ANY
    board, block = surface(split, rng, ranges), surface(split, rng, ranges)
    count = int(rng.integers(5, 8))
    thick, low, high = 0.022, 0.022, 0.122
    width = 0.62 * y / count * rng.uniform(1.0, 1.35)
    parts = []
    for index in range(count):
        v = (index / (count - 1) - 0.5) * (y - width)
        parts.append(_box((x, width, thick), board, (0, v, high + 0.5 * thick)))
    for v in (-0.5, 0, 0.5):
        lane = v * (y - 0.1)
        parts.append(_box((x, 0.1, low), board, (0, lane, low / 2)))
        for u in (-0.5, 0, 0.5):
            size = (0.14, 0.1, high - low)
            parts.append(_box(size, block, (u * (x - 0.14), lane, (low + high) / 2)))
    return tuple(parts)


def chair(split: Split, rng: np.random.Generator) -> Parts:
    """Stand a chair: on four legs, or an office chair on a star foot."""
    seat_height = rng.uniform(0.42, 0.5)
    width, depth = rng.uniform(0.4, 0.5), rng.uniform(0.4, 0.48)
    back = rng.uniform(0.35, 0.55)
    look = surface(split, rng, palette.ANY if rng.random() < 0.5 else palette.DARK)
    frame = surface(split, rng, (palette.METAL, palette.DARK, palette.WOOD)[rng.integers(3)])
    parts = [_box((depth, width, 0.05), look, (0, 0, seat_height))]
    lean = rng.uniform(0.05, 0.2)
    top = seat_height + 0.1 + back / 2
    rear = -depth / 2 - 0.02
    parts.append(_box((0.04, width * 0.95, back), look, (rear - 0.03, 0, top), (0, -lean, 0)))
    if rng.random() < 0.6:
        for u in (-1, 1):
            for v in (-1, 1):
                foot = (u * (depth / 2 - 0.0), v * (width / 2 - 0.0), 0.02)
                head = (u * (depth / 2 - 0.05), v * (width / 2 - 0.04), seat_height)
                parts.append(_limb(head, foot, 0.018, frame))
        for v in (-1, 1):
            start = (rear + 0.03, v * (width / 2 - 0.05), seat_height)
            end = (rear - 0.03, v * (width / 2 - 0.05), seat_height + 0.1 + 0.4 * back)
            parts.append(_limb(start, end, 0.016, frame))
    else:
        parts.append(_upright(0.03, seat_height - 0.08, frame, 0, 0, 0.08))
        for angle in np.arange(5) * 2 * math.pi / 5:
            tip = (0.3 * math.cos(angle), 0.3 * math.sin(angle), 0.06)
            parts.append(_limb((0, 0, 0.1), tip, 0.022, frame))
            parts.append(Part(Ellipsoid((0.03, 0.03, 0.03)), frame, Pose((tip[0], tip[1], 0.03))))
        spine = (rear - 0.02, 0.0, seat_height + 0.2)
        parts.append(_limb((-depth / 4, 0, seat_height - 0.02), spine, 0.02, frame))
    if rng.random() < 0.35:
        for v in (-1, 1):
            rest = (0.6 * depth, 0.05, 0.03)
            parts.append(_box(rest, frame, (0, v * (width / 2 + 0.02), seat_height + 0.2)))
            start = (0.0, v * (width / 2 + 0.02), seat_height)
            parts.append(_limb(start, (start[0], start[1], seat_height + 0.2), 0.015, frame))
    return tuple(parts)


def fire_extinguisher(split: Split, rng: np.random.Generator) -> Parts:
    """Stand a red cylinder with dome, valve, lever, hose, horn and instruction label."""
    radius, height = rng.uniform(0.075, 0.1), rng.uniform(0.42, 0.58)
    look = surface(split, rng, palette.FIRE_RED)
    black = surface(split, rng, palette.DARK)
    note = surface(split, rng, palette.PALE)
    metal = surface(split, rng, palette.METAL)
    body = height - 0.14
    hose_top, hose_low = (0.05, 0.03, height - 0.05), (radius + 0.03, 0.03, height - 0.14)
    nozzle = (radius + 0.045, 0.03, rng.uniform(0.35, 0.55) * height)
    return (
        _upright(radius, body, look, 0, 0, 0.02),
        _upright(radius * 0.95, 0.02, black, 0, 0, 0),
        Part(Ellipsoid((radius, radius, 0.07)), look, Pose((0, 0, body + 0.02))),
        _upright(0.025, 0.07, metal, 0, 0, height - 0.09),
        _box((0.05, 0.04, 0.03), black, (0, 0, height - 0.03)),
        _box((0.14, 0.025, 0.015), black, (0.05, 0, height - 0.01), (0, 0.2, 0)),
        _limb(hose_top, hose_low, 0.014, black),
        _limb(hose_low, nozzle, 0.014, black),
        Part(Frustum(0.032, 0.016, 0.1), black, Pose((nozzle[0], nozzle[1], nozzle[2] - 0.05))),
        _upright(radius + 0.002, 0.4 * body, note, 0, 0, 0.3 * body),
        _upright(radius + 0.003, 0.05 * body, look, 0, 0, 0.52 * body),
    )


def barrier(split: Split, rng: np.random.Generator) -> Parts:
    """Stand a barrier: one or two boards striped in two colours, on two A-shaped legs."""
    width, height = rng.uniform(1.0, 1.6), rng.uniform(0.8, 1.05)
    bright = (palette.FIRE_RED, palette.SAFETY_ORANGE, palette.SAFETY_YELLOW)[rng.integers(3)]
    one = surface(split, rng, bright)
    black = bright is palette.SAFETY_YELLOW and rng.random() < 0.7
    other = surface(split, rng, palette.DARK if black else palette.PALE)
    leg = surface(split, rng, (palette.METAL, palette.DARK, palette.PALE)[rng.integers(3)])
    stripes = int(rng.integers(6, 10))
    board = rng.uniform(0.18, 0.28)
    levels = (height - board / 2,) if rng.random() < 0.5 else (height - board / 2, 0.5 * height)
    parts = []
    for z in levels:
        for index in range(stripes):
            v = ((index + 0.5) / stripes - 0.5) * width
            size = (0.03, width / stripes, board)
            parts.append(_box(size, other if index % 2 else one, (0, v, z)))
    for v in (-0.42, 0.42):
        for u in (-0.22, 0.22):
            parts.append(_limb((0, v * width, height), (u, v * width, 0.02), 0.02, leg))
        parts.append(_box((0.35, 0.03, 0.03), leg, (0, v * width, 0.25)))
    return tuple(parts)


BUILDERS: dict[str, Builder] = {
    'person': person,
    'box': box,
    'cone': cone,
    'barrel': barrel,
    'pallet': pallet,
    'chair': chair,
    'fire_extinguisher': fire_extinguisher,
    'barrier': barrier,
}


def labelled(
    label: str, name: str, split: Split, rng: np.random.Generator, pose: Pose | None = None
) -> SceneObject:
    """Return a new individual of a label of `LABELS`."""
    return SceneObject(name, BUILDERS[label](split, rng), label, pose or Pose())


def shelf(split: Split, rng: np.random.Generator) -> Parts:
    """Stand an empty shelf unit, long side along x."""
    length, depth, height = rng.uniform(1.8, 3.0), rng.uniform(0.4, 0.7), rng.uniform(1.6, 2.6)
    post = surface(split, rng, palette.ANY if rng.random() < 0.5 else palette.METAL)
    board = surface(split, rng, palette.MUTED)
    parts = [
        _box((0.06, 0.06, height), post, (u * (length / 2), v * (depth / 2), height / 2))
        for u in (-1, 0, 1)
        for v in (-1, 1)
    ]
    for z in np.linspace(0.15, height - 0.05, int(rng.integers(3, 6))):
        parts.append(_box((length, depth, 0.04), board, (0, 0, float(z))))
    return tuple(parts)


def table(split: Split, rng: np.random.Generator) -> Parts:
    """Stand a work table."""
    length, depth, height = rng.uniform(1.0, 1.8), rng.uniform(0.6, 0.9), rng.uniform(0.7, 0.95)
    top, leg = surface(split, rng, palette.MUTED), surface(split, rng, palette.METAL)
    legs = [
        _box(
            (0.05, 0.05, height), leg, (u * (length / 2 - 0.05), v * (depth / 2 - 0.05), height / 2)
        )
        for u in (-1, 1)
        for v in (-1, 1)
    ]
    return (_box((length, depth, 0.05), top, (0, 0, height)), *legs)


def pillar(split: Split, rng: np.random.Generator) -> Parts:
    """Raise a pillar to the roof, round or square, with a painted foot."""
    width = rng.uniform(0.3, 0.5)
    look, foot = surface(split, rng, palette.MUTED), surface(split, rng, palette.ANY)
    if rng.random() < 0.5:
        return (
            _upright(width / 2, 5.0, look, 0, 0, 0),
            _upright(width / 2 + 0.01, 1.0, foot, 0, 0, 0),
        )
    return (
        _box((width, width, 5.0), look, (0, 0, 2.5)),
        _box((width + 0.02, width + 0.02, 1.0), foot, (0, 0, 0.5)),
    )


def cabinet(split: Split, rng: np.random.Generator) -> Parts:
    """Stand a tall steel cabinet with doors and handles."""
    width, depth, height = rng.uniform(0.8, 1.2), rng.uniform(0.4, 0.5), rng.uniform(1.7, 2.0)
    look, dark = surface(split, rng, palette.MUTED), surface(split, rng, palette.DARK)
    return (
        _box((width, depth, height), look, (0, 0, height / 2)),
        _box((0.01, 0.01, height - 0.1), dark, (0, -depth / 2, height / 2)),
        _box((0.02, 0.04, 0.2), dark, (0.06, -depth / 2, height / 2)),
        _box((0.02, 0.04, 0.2), dark, (-0.06, -depth / 2, height / 2)),
    )


def trolley(split: Split, rng: np.random.Generator) -> Parts:
    """Stand a platform trolley with a push bar."""
    length, width = rng.uniform(0.8, 1.1), rng.uniform(0.5, 0.65)
    deck, bar = surface(split, rng, palette.ANY), surface(split, rng, palette.METAL)
    wheel = surface(split, rng, palette.DARK)
    rear = -length / 2 + 0.03
    parts = [_box((length, width, 0.05), deck, (0, 0, 0.2))]
    for v in (-1, 1):
        y = v * (width / 2 - 0.05)
        parts.append(_limb((rear, y, 0.2), (rear - 0.05, y, 0.95), 0.016, bar))
        for u in (-1, 1):
            turned = Pose((u * (length / 2 - 0.12), y, 0.08), (math.pi / 2, 0, 0))
            parts.append(Part(Cylinder(0.08, 0.04), wheel, turned))
    y = width / 2 - 0.05
    parts.append(_limb((rear - 0.05, -y, 0.95), (rear - 0.05, y, 0.95), 0.016, bar))
    return tuple(parts)


SCENERY: dict[str, Builder] = {
    'shelf': shelf,
    'table': table,
    'pillar': pillar,
    'cabinet': cabinet,
    'trolley': trolley,
}

assert tuple(BUILDERS) == LABELS
