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

"""Pages of a single file, which fetch nothing and need no scripts: one style, light and dark.

Templates extend `base.html`. What they show is escaped, wherever it came from.
"""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import Any

from pruned_perception._tables import printable, shown
from pruned_perception.errors import UserError

COLORS = {
    'ink': ('#1d2733', '#e6ebf1'),
    'soft': ('#556274', '#a6b2c0'),
    'axis': ('#8a97a6', '#7c8a99'),
    'line': ('#dde3ea', '#35404c'),
    'paper': ('#ffffff', '#1b2229'),
    'ground': ('#f4f6f9', '#11161b'),
    'first': ('#2f6db3', '#5b9be0'),
    'second': ('#c8541a', '#e98145'),
    'warn': ('#fdf1d8', '#4d3c17'),
}
"""The pages' colours, on light and on dark ground; `var(--name)` in styles and pictures."""


def render(template: str, **values: Any) -> str:
    """Return a template, a path within this package, filled with values.

    Raises:
        UserError: jinja2 is not installed.
    """
    return _environment().get_template(template).render(values)


def themed(svg: str) -> str:
    """Return an SVG element whose light colours turn dark with the page."""
    for name, (light, _) in COLORS.items():
        svg = svg.replace(light, f'var(--{name})')
    return svg


def macs(count: int) -> str:
    """Return a number of multiply–accumulates with its unit."""
    return f'{count / 1e9:.2f} G' if count >= 1e9 else f'{count / 1e6:.3g} M'


def data_uri(data: bytes, kind: str) -> str:
    """Return an image, a `png` or `jpeg`, as an address that holds it."""
    return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'


def bar(share: float, text: str, kind: str = '') -> Any:
    """Return a cell of a table: a share in 0 … 1, drawn, and text, which may have a note."""
    from markupsafe import Markup

    width = 100 * min(max(share, 0.0), 1.0)
    drawn = Markup('<span class="bar"><i class="{}" style="width:{:.1f}%"></i></span><b>{}</b>{}')
    value, *note = text.partition('\n')
    return drawn.format(kind, width, value, ''.join(note))


@cache
def _environment() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise UserError("pages need jinja2: pip install 'pruned_perception[bench]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(shown=shown, macs=macs)
    environment.globals.update(COLORS=COLORS, bar=bar)
    return environment
