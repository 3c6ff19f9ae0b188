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

"""The only table of the nodes' parameters: name, type, default, range, and when it may change.

`config/perception.yaml` and the tables in docs/node.md and docs/simulation.md are written from it:
`python -m pruned_perception.nodes.parameters` (a test compares them).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pruned_perception._tables import Table
from pruned_perception.errors import UserError

LIVE = 'live'  # at any moment; the next frame sees the new value
INACTIVE = 'while not active'  # read when the node is activated
START = 'at start'  # read once

AS_MANIFEST = -1.0
"""A threshold of this value is the manifest's."""


class ParameterError(UserError):
    """A parameter has a value that the node cannot take."""


@dataclass(frozen=True)
class Parameter:
    """One row of the table; `bounds` are inclusive, `choices` the only values of a string."""

    name: str
    default: str | bool | int | float | list[str]
    change: str
    text: str
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """The ROS name of the type."""
        if isinstance(self.default, list):
            return 'string_array'
        return {bool: 'bool', int: 'integer', float: 'double', str: 'string'}[type(self.default)]

    @property
    def constraint(self) -> str:
        """The range or the choices, in words; '' where every value is taken."""
        if self.bounds is not None:
            return f'{self.bounds[0]:g} … {self.bounds[1]:g}'
        return ' | '.join(self.choices)

    def coerce(self, value: Any) -> Any:
        """Return `value` in the parameter's type.

        A whole number is taken for a double, and an empty array for an array of strings: the
        command line and YAML write both so. Raises ParameterError that names parameter, value
        and range.
        """
        if self.type == 'double' and type(value) is int:
            value = float(value)
        if self.type == 'string_array' and value is not None and not isinstance(value, str | bytes):
            value = list(value) if isinstance(value, Iterable) else value
            fits = isinstance(value, list) and all(isinstance(each, str) for each in value)
        else:
            fits = type(value) is type(self.default)
        if not fits:
            raise ParameterError(f'parameter {self.name}: {value!r} is not of type {self.type}')
        if self.bounds is not None and not self.bounds[0] <= value <= self.bounds[1]:
            raise ParameterError(
                f'parameter {self.name}: {value!r} is not in the range {self.constraint}'
            )
        if self.choices and value not in self.choices:
            raise ParameterError(
                f'parameter {self.name}: {value!r} is none of {", ".join(self.choices)}'
            )
        if self.bounds == (AS_MANIFEST, 1.0) and AS_MANIFEST < value < 0:
            raise ParameterError(
                f"parameter {self.name}: {value!r} is neither in 0 … 1 nor -1 (the manifest's)"
            )
        return value


IMAGE_PARAMETERS = (
    Parameter(
        'image_transport',
        'raw',
        INACTIVE,
        'raw subscribes to image_raw, compressed to image_raw/compressed.',
        choices=('raw', 'compressed'),
    ),
    Parameter(
        'image_reliability',
        'auto',
        INACTIVE,
        'Reliability of the image subscription; auto follows the publishers (reliable if all are) '
        'and looks again whenever they change.',
        choices=('auto', 'best_effort', 'reliable'),
    ),
    Parameter(
        'image_timeout_s',
        2.0,
        LIVE,
        'Seconds without an image after which diagnostics say so.',
        bounds=(0.1, 3600.0),
    ),
    Parameter(
        'max_age_ms',
        0.0,
        LIVE,
        'Refuse frames whose header stamp is older than this when their turn comes; 0 = never.',
        bounds=(0.0, 1e9),
    ),
    Parameter(
        'latency_budget_ms',
        0.0,
        LIVE,
        'Latency budget from header stamp to published detections (from receipt where the stamp '
        'is invalid or over 10 s old); a family keeps it by its choice of member, and diagnostics '
        'warn where it is missed; 0 = none.',
        bounds=(0.0, 1e9),
    ),
    Parameter(
        'frame_timeout_s',
        1.0,
        LIVE,
        'Seconds that the worker may take for one frame before diagnostics report an ERROR.',
        bounds=(0.05, 3600.0),
    ),
    Parameter(
        'frame_limit_s',
        10.0,
        LIVE,
        'Seconds for one frame after which the run of the network is broken off; if it does not '
        'end then, the process does (by SIGALRM), so that it can be started again.',
        bounds=(0.1, 3600.0),
    ),
    Parameter(
        'load_limit_s',
        60.0,
        LIVE,
        'Seconds for loading and warming up the model after which configure gives up.',
        bounds=(0.1, 3600.0),
    ),
    Parameter(
        'class_id_format',
        'index',
        INACTIVE,
        'class_id of the detections: the index in label_info as a decimal string, or the name.',
        choices=('index', 'name'),
    ),
    Parameter(
        'timings_file',
        '',
        START,
        'Write the stage times of every processed frame to this file, a JSON object per line; '
        '"" = none.',
    ),
    Parameter(
        'autostart',
        True,
        START,
        'Configure and activate by itself; false leaves that to a lifecycle manager.',
    ),
)

PERCEPTION_PARAMETERS = (
    Parameter(
        'model',
        'package://pruned_perception/models/warehouse',
        LIVE,
        'Bundle or family: the name of a shipped one, a path or package://PACKAGE/PATH. A new one '
        'is loaded and checked beside the one that runs, and takes over between two frames.',
    ),
    Parameter(
        'member',
        '',
        INACTIVE,
        'Use this member of the family alone, by name, as if it were a bundle; "" = the family.',
    ),
    Parameter(
        'active_member',
        '',
        LIVE,
        'Member of the family that runs, by name; "" = automatic: the most accurate one that keeps '
        'latency_budget_ms, or without a budget the dense one.',
    ),
    Parameter(
        'trusted_keys',
        '',
        INACTIVE,
        'File of OpenSSH public keys (Ed25519), one a line: only models signed by one of them are '
        'loaded; "" = unsigned ones too.',
    ),
    Parameter(
        'execution_provider',
        'cpu',
        INACTIVE,
        'Where the network runs, as far as the installed ONNX Runtime has it: cpu, openvino, cuda, '
        'tensorrt, …; several, best first, to fall back where one does not load: cuda, cpu.',
    ),
    Parameter('threads', 1, INACTIVE, 'Threads of one run of the network.', bounds=(1, 256)),
    Parameter(
        'score_threshold',
        AS_MANIFEST,
        LIVE,
        'Least score of a detection, 0 … 1; -1 = as the manifest says.',
        bounds=(AS_MANIFEST, 1.0),
    ),
    Parameter(
        'iou_threshold',
        AS_MANIFEST,
        LIVE,
        'Boxes of one class that overlap more than this are one object, 0 … 1; -1 = as the '
        'manifest says.',
        bounds=(AS_MANIFEST, 1.0),
    ),
    Parameter(
        'max_detections',
        0,
        LIVE,
        'Most detections of a frame; 0 = as the manifest says.',
        bounds=(0, 10000),
    ),
    Parameter(
        'classes',
        [''],
        LIVE,
        'Publish only these classes, by name; [""] = all.',
    ),
    Parameter(
        'max_megapixels',
        12.5,
        LIVE,
        'Largest compressed image, in millions of pixels; larger ones are refused before they are '
        'decoded. PNG, and JPEG of several scans: half of it.',
        bounds=(0.01, 134.0),
    ),
    Parameter(
        'watch_share',
        0.0,
        INACTIVE,
        'Share of the frames, drawn at random, that the dense net of the family looks at, too, in '
        'idle time, to watch the certificate; 0 = none.',
        bounds=(0.0, 1.0),
    ),
    Parameter(
        'watch_file',
        '',
        INACTIVE,
        'File in which the evidence against the certificate is kept across drives; "" = in memory '
        'alone.',
    ),
    *IMAGE_PARAMETERS,
)

ECHO_PARAMETERS = (
    Parameter('boxes', 10, LIVE, 'Detections published for every frame.', bounds=(0, 10000)),
    *IMAGE_PARAMETERS,
)

ROBOT_PARAMETERS = (
    Parameter(
        'scene_seed',
        0,
        START,
        'Which warehouse: the same seed gives the same hall and objects.',
        bounds=(0, 2**31 - 1),
    ),
    Parameter(
        'rate_hz',
        15.0,
        LIVE,
        'Images per second; fewer where rendering takes longer.',
        bounds=(0.1, 120.0),
    ),
    Parameter('shadows', False, LIVE, 'Render shadows: an image costs twice the time.'),
    Parameter('speed', 0.6, LIVE, 'Speed along the route, m/s.', bounds=(0.0, 1.5)),
    Parameter(
        'follow_route',
        True,
        LIVE,
        'Drive along the route while there is no cmd_vel; false: stand still.',
    ),
    Parameter(
        'cmd_vel_timeout_s',
        0.5,
        LIVE,
        'Seconds for which one message on cmd_vel holds.',
        bounds=(0.05, 10.0),
    ),
    Parameter(
        'image_reliability',
        'reliable',
        START,
        'Reliability of the image publisher.',
        choices=('reliable', 'best_effort'),
    ),
    Parameter('frame_id', 'camera_optical_frame', START, 'frame_id of all headers.'),
    Parameter(
        'min_visible',
        0.3,
        LIVE,
        'Least share of an object that must be visible for it to be in ground_truth.',
        bounds=(0.0, 1.0),
    ),
)


DRIVER_PARAMETERS = (
    Parameter(
        'route',
        '',
        START,
        'File of the closed route: a point x,y in metres a line.',
    ),
    Parameter('speed', 0.6, LIVE, 'Speed along the route, m/s.', bounds=(0.0, 1.5)),
)


def class_ids(names: Sequence[str], labels: Sequence[str]) -> frozenset[int] | None:
    """Return the indices of the classes named; None, which is all, for [] and [''].

    Raises ParameterError for a name that is no label, with the labels.
    """
    wanted = [name for name in names if name]
    for name in wanted:
        if name not in labels:
            raise ParameterError(
                f'parameter classes: {name!r} is no label of the model; it has {", ".join(labels)}'
            )
    return frozenset(labels.index(name) for name in wanted) if wanted else None


def check(table: Sequence[Parameter], values: Mapping[str, Any], *, active: bool) -> dict[str, Any]:
    """Return the changed `values` in their types; names that are not in `table` are left out.

    Raises ParameterError with the reason for the first value that cannot be taken now.
    """
    rows = {row.name: row for row in table}
    checked = {}
    for name, value in values.items():
        row = rows.get(name)
        if row is None:
            continue
        if row.change == START:
            raise ParameterError(f'parameter {name}: it is read at start only; restart the node')
        if row.change == INACTIVE and active:
            raise ParameterError(
                f'parameter {name}: it cannot change while the node is active; deactivate it '
                'first (ros2 lifecycle set NODE deactivate), then activate it again'
            )
        checked[name] = row.coerce(value)
    return checked


def as_yaml(
    table: Sequence[Parameter] = PERCEPTION_PARAMETERS, node: str = 'perception_node'
) -> str:
    """Return a parameter file of the defaults, every row commented."""
    lines = [
        '# Defaults of every parameter. Written by `python -m pruned_perception.nodes.parameters`',
        '# from its table; copy this file and change the copy.',
        f'/**/{node}:',
        '  ros__parameters:',
    ]
    for row in table:
        range_text = f' [{row.constraint}]' if row.constraint else ''
        comment = f'{row.text}{range_text} May change {row.change}.'
        lines += [f'    # {line}' for line in textwrap.wrap(comment, 92)]
        lines.append(f'    {row.name}: {_yaml(row.default)}')
    return '\n'.join(lines) + '\n'


def as_markdown(table: Sequence[Parameter] = PERCEPTION_PARAMETERS) -> str:
    """Return the table for the documentation."""
    header = 'parameter | type | default | range | may change | meaning'
    rows = [
        (f'`{row.name}`', row.type, f'`{_yaml(row.default)}`', row.constraint, row.change, row.text)
        for row in table
    ]
    return Table.under(header, rows).to_markdown() + '\n'


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).partition('\n')[0]


BEGIN, END = '<!-- parameters: begin -->\n', '<!-- parameters: end -->\n'


def with_table(document: str, table: Sequence[Parameter] = PERCEPTION_PARAMETERS) -> str:
    """Return `document` with the table between its marks replaced by the present one."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f'{before}{BEGIN}{as_markdown(table)}{END}{after}'


def main() -> None:
    """Write config/perception.yaml and the tables in docs/ of the checkout."""
    root = Path(__file__).resolve().parents[2]
    config = root / 'config' / 'perception.yaml'
    config.write_text(as_yaml(), encoding='utf-8')
    print(f'written: {config}')
    tables = {
        'node.md': PERCEPTION_PARAMETERS,
        'simulation.md': ROBOT_PARAMETERS,
        'gazebo.md': DRIVER_PARAMETERS,
    }
    for name, table in tables.items():
        page = root / 'docs' / name
        page.write_text(with_table(page.read_text(encoding='utf-8'), table), encoding='utf-8')
        print(f'written: {page}')


if __name__ == '__main__':
    main()
