"""Bytes of a sparse weight in its usual forms.

Both forms hold the values that are kept as they are; entropy coding would shrink either further.
"""

from __future__ import annotations

_POINTER_BYTES = 4


def bitmask_bytes(weights: int, kept: int, value_bytes: int) -> int:
    """Return the size of a mask of one bit per weight and the kept values.

    >>> bitmask_bytes(1000, 100, 4)
    525
    """
    return -(-weights // 8) + kept * value_bytes


def csr_bytes(rows: int, columns: int, kept: int, value_bytes: int) -> int:
    """Return the size of compressed sparse rows: kept values, their columns, a pointer per row.

    Columns take two bytes each up to 65,536 of them, else four; pointers take four.

    >>> csr_bytes(10, 100, 100, 4)
    644
    """
    index_bytes = 2 if columns <= 1 << 16 else 4
    return kept * (value_bytes + index_bytes) + (rows + 1) * _POINTER_BYTES
