"""The name of the topic that images come on."""

from __future__ import annotations


def image_topic(base: str, transport: str) -> str:
    """Return the topic of `base` by an image_transport: base/compressed for `compressed`.

    Remapping the base moves it, as image_transport does. A base that is this topic already, as
    `ros2 topic list` shows it, is taken as it is.
    """
    suffix = '' if transport == 'raw' else f'/{transport}'
    return base if base.endswith(suffix) else base + suffix
