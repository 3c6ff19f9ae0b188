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

"""Which layers bear 8 bits: measured one by one, then together.

Each layer is quantised alone, all others in float, and the network's answers are compared with
the float network's. Layers that err most for the multiply–accumulates they stand for are left in
float first, as long as that helps and a given share of the arithmetic is not exceeded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pruned_perception.quantization.qdq import Layer

ErrorOf = Callable[[Sequence[str]], float]
"""Names of layers in 8 bits → error of the network."""
_WORTH = 1.25  # of the least error: what fewer layers in float may cost


@dataclass(frozen=True)
class Choice:
    """Layers left in float and what that gives."""

    in_float: tuple[str, ...]
    error: float
    steps: tuple[tuple[int, float], ...]
    """(layers in float, error) of every choice that was measured."""


def choose(
    layers: Sequence[Layer],
    error_of: ErrorOf,
    *,
    share: float,
    max_error: float | None = None,
    on_progress: Callable[[float], None] = lambda done: None,
) -> Choice:
    """Return the layers to leave in float.

    Args:
        layers: all that are quantised otherwise.
        error_of: measures; 0 is the float network.
        share: 0 … 1 of the multiply–accumulates may stay in float.
        max_error: take the fewest layers that keep this error; where none do, or without it,
            those with the least error, or fewer where that costs a quarter of it at most.
        on_progress: told the share of the work that is done.
    """
    if not share:
        error = error_of([each.name for each in layers])
        return Choice((), error, ((0, error),))
    names = [each.name for each in layers]
    alone = {}
    for number, name in enumerate(names):
        alone[name] = error_of([name])
        on_progress((number + 1) / (len(names) + 6))
    total = sum(each.macs or 0 for each in layers)
    cost = {each.name: (each.macs or total / len(layers)) + 1 for each in layers}
    ranked = sorted(names, key=lambda name: (-(alone[name] ** 2) / cost[name], name))
    allowed, left = [], share * (total + len(layers))
    for name in ranked:
        if cost[name] <= left:
            allowed.append(name)
            left -= cost[name]
    counts = [0, *(2**k for k in range(len(allowed).bit_length()) if 2**k < len(allowed))]
    counts += [len(allowed)] * bool(allowed)
    found = []
    for number in counts:
        kept = set(allowed[:number])
        found.append((number, error_of([each for each in names if each not in kept])))
        if max_error is not None and found[-1][1] <= max_error:
            break
    least = min(error for _, error in found)
    limit = max_error if max_error is not None and least <= max_error else _WORTH * least
    chosen = next((number, error) for number, error in found if error <= limit)
    on_progress(1.0)
    return Choice(tuple(allowed[: chosen[0]]), chosen[1], tuple(found))
