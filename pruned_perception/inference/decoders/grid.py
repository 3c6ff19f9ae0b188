"""The cells of dense detection heads: several strides, row-major, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def cell_count(input_size: tuple[int, int], strides: Sequence[int]) -> int:
    """Return the number of cells of an input (height, width): sums of ceil(H/s) · ceil(W/s)."""
    height, width = input_size
    return sum(-(-height // stride) * -(-width // stride) for stride in strides)


@lru_cache(maxsize=16)
def cells(
    input_size: tuple[int, int], strides: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (column, row) of all cells as (N, 2), and their strides as (N, 1)."""
    height, width = input_size
    corners, sizes = [], []
    for stride in strides:
        rows, columns = np.mgrid[0 : -(-height // stride), 0 : -(-width // stride)]
        corners.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        sizes.append(np.full((rows.size, 1), stride))
    return (
        np.concatenate(corners).astype(np.float32),
        np.concatenate(sizes).astype(np.float32),
    )


def above(
    scores: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.float32]]:
    """Return rows of `scores` (N, C) whose best is ≥ `threshold`, their best class and score."""
    rows = np.flatnonzero(scores.max(axis=1) >= threshold)
    few = scores[rows]
    class_ids = few.argmax(axis=1)
    return rows, class_ids.astype(np.int64), few[np.arange(len(rows)), class_ids]
