"""Text for people: what came from outside shows, and never steers, the terminal."""

from __future__ import annotations

from typing import TextIO

from pruned_perception._tables import printable


def say(text: str, *, file: TextIO | None = None) -> None:
    """Print lines, with what is no visible character escaped, at once."""
    print('\n'.join(map(printable, text.split('\n'))), file=file, flush=True)
