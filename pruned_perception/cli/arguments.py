"""Types of command-line arguments that several subcommands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def fraction(text: str) -> float:
    """Return a number in 0 … 1."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is no number') from None
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text} is not in 0 … 1')
    return value


def at_least(minimum: int) -> Callable[[str], int]:
    """Return a type for integers of at least `minimum`."""

    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'{text!r} is no integer') from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f'{text} is less than {minimum}')
        return value

    return integer
