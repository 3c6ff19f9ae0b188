"""Small pictures for the report: curves as SVG, rows of coloured cells as PNG."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

KEPT = ((214, 228, 243), (23, 74, 138))
"""Colours (r, g, b) of a kept channel whose sensitivity is 0, and 1."""
CUT = ((251, 224, 203), (178, 66, 14))
WIDTH, HEIGHT = 520, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 22, 14, 44


@dataclass(frozen=True)
class Line:
    """A curve y(x), x > 0 and y in 0 … 1, and how it is drawn."""

    name: str
    points: tuple[tuple[float, float], ...]
    color: str
    dashed: bool = False


def data_uri(cells: Sequence[tuple[float, bool]]) -> str:
    """Return a PNG of one row, a pixel per channel: the most sensitive first, kept or cut.

    The darker, the more sensitive: the square root of the sensitivity, since most are small.
    """
    row = np.empty((1, len(cells), 3), np.uint8)
    for index, (value, kept) in enumerate(sorted(cells, key=lambda cell: -cell[0])):
        light, dark = (np.array(each, float) for each in (KEPT if kept else CUT))
        strength = math.sqrt(min(max(value, 0.0), 1.0))
        row[0, index] = (light + strength * (dark - light)).round()
    done, data = cv2.imencode('.png', row[..., ::-1])
    assert done
    return f'data:image/png;base64,{base64.b64encode(data.tobytes()).decode()}'


def ramp(colors: tuple[tuple[int, int, int], tuple[int, int, int]]) -> str:
    """Return the colours as a CSS gradient."""
    first, last = (f'rgb({r},{g},{b})' for r, g, b in colors)
    return f'linear-gradient(90deg,{first},{last})'


def error_chart(
    lines: Sequence[Line], *, real: float, mark: float | None, x_label: str, title: str
) -> str:
    """Return an SVG of size (share of the dense network's) against error, errors logarithmic.

    Args:
        lines: the predictions.
        real: the size that a plan really has, drawn across.
        mark: the plan's own a-priori error, a dot on that line, where it is known.
        x_label: of the errors.
        title: what the chart shows, for who cannot see it.
    """
    errors = [x for line in lines for x, _ in line.points]
    low = math.floor(math.log10(max(min(errors), 1e-3)))
    high = math.ceil(math.log10(max(*errors, 2.0)))

    def x_of(error: float) -> float:
        share = (math.log10(max(error, 10.0**low)) - low) / (high - low)
        return _LEFT + min(share, 1.0) * (WIDTH - _LEFT - _RIGHT)

    def y_of(share: float) -> float:
        return _TOP + (1 - share) * (HEIGHT - _TOP - _BOTTOM)

    right, floor = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    vacuous = x_of(1.0)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}" '
        'font-size="14" font-family="inherit" fill="#556274">',
        f'<rect x="{vacuous:.1f}" y="{_TOP}" width="{right - vacuous:.1f}" '
        f'height="{floor - _TOP}" fill="#fdf1d8"/>',
        f'<text x="{right - 6}" y="{_TOP + 16}" text-anchor="end">vacuous</text>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = y_of(share)
        parts.append(
            f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dde3ea"/>'
            f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>'
        )
    for power in range(low, high + 1):
        x = x_of(10.0**power)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 5}" stroke="#8a97a6"/>'
            f'<text x="{x:.1f}" y="{floor + 19}" text-anchor="middle">{10.0**power:g}</text>'
        )
    parts.append(
        f'<text x="{(_LEFT + right) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">'
        f'{html.escape(x_label)}</text>'
    )
    for line in lines:
        inside = [(x, y) for x, y in line.points if x >= 10.0**low]
        path = ' '.join(f'{x_of(x):.1f},{y_of(y):.1f}' for x, y in inside)
        dash = ' stroke-dasharray="6 4"' if line.dashed else ''
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{line.color}" stroke-width="2.2"'
            f'{dash}/>'
        )
    y = y_of(real)
    parts.append(
        f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#1d2733" '
        f'stroke-width="1.4" stroke-dasharray="2 3"/>'
        f'<text x="{_LEFT + 6}" y="{y - 6:.1f}" fill="#1d2733" font-weight="600">'
        f'this plan: {real:.1%}</text>'
    )
    if mark is not None:
        parts.append(f'<circle cx="{x_of(mark):.1f}" cy="{y:.1f}" r="5" fill="#1d2733"/>')
    return ''.join([*parts, '</svg>'])
