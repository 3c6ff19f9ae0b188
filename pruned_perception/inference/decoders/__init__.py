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

"""Decoders: what the outputs of a kind of detector mean.

A decoder is a module here, of the name that bundles call it by, with `DEFAULTS`, `check` and
`decode`; it is imported when a bundle names it. All return boxes in pixels of the network's input;
letterbox, clipping and non-maximum suppression are the detector's, the same for all.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from pruned_perception.inference.detections import Candidates
from pruned_perception.inference.errors import InferenceError


class Decoder(Protocol):
    """What a decoder module offers."""

    DEFAULTS: Mapping[str, Any]
    """Its parameters and their defaults; a manifest may give any of them, and no others."""

    @staticmethod
    def check(
        shapes: Sequence[tuple[int, ...]],
        parameters: Mapping[str, Any],
        input_size: tuple[int, int],
        classes: int,
    ) -> None:
        """Raise ValueError where outputs of these shapes cannot be decoded to `classes` classes.

        `shapes` are those of a run, in the manifest's order; `input_size` is (height, width).
        """

    @staticmethod
    def decode(
        outputs: Sequence[NDArray[Any]],
        parameters: Mapping[str, Any],
        input_size: tuple[int, int],
        score_threshold: float,
    ) -> Candidates:
        """Return the boxes whose score is at least `score_threshold`, in input pixels."""


def names() -> tuple[str, ...]:
    """Return the names of all decoders."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(name for name in found if not name.startswith('_'))


def get(name: str) -> Decoder:
    """Return the decoder of that name; raises InferenceError with the names that there are."""
    if name not in names():
        raise InferenceError(
            f'unknown decoder {name!r}; this installation has {", ".join(names())} '
            '(update pruned_perception if the bundle is newer)'
        )
    return cast(Decoder, importlib.import_module(f'{__name__}.{name}'))
