"""Figures by matplotlib, where it is installed."""

from __future__ import annotations

from typing import Any

from pruned_perception._tables import printable
from pruned_perception.errors import UserError


def matplotlib(error: type[UserError] = UserError) -> Any:
    """Return matplotlib, with its figures; raise `error` where it is missing."""
    try:
        import matplotlib.figure
    except ImportError as missing:
        raise error("plots need matplotlib: pip install 'pruned_perception[bench]'") from missing
    return matplotlib


def literal(text: str) -> str:
    """Return text as matplotlib is to draw it: `$` begins no formula."""
    return printable(text).replace('$', r'\$')
