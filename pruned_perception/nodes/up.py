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

"""The sets of processes that `pruned-perception up` starts, as plain data.

They are those of the launch files, for machines without ROS 2; a test compares the arguments and
the command lines of both.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pruned_perception.bundle.resolve import SCHEME, resolve_model
from pruned_perception.errors import UserError
from pruned_perception.nodes import transport

RESPAWN_DELAY_S = 2.0
"""Seconds between the end of a process and its new start, with respawn:=true."""


class Choices(tuple[str, ...]):
    """The values that an argument may have, in whatever case they are given.

    Launch compares with `in`. `autostart:=True` and `log_level:=INFO` are what other launch files
    say and, by includes, hand down.
    """

    def find(self, value: object) -> str | None:
        """Return which of the values is meant; None for none of them."""
        word = str(value).strip().lower()
        for meant in (word, _SPELT.get(word)):
            if meant is not None and tuple.__contains__(self, meant):
                return meant
        return None

    def __contains__(self, value: object) -> bool:
        return self.find(value) is not None


# What launch's conditions, or YAML, take for true and false, too.
_SPELT = {'1': 'true', 'yes': 'true', 'on': 'true', '0': 'false', 'no': 'false', 'off': 'false'}

NO_CHOICES = Choices()
TRUTH = Choices(('', 'true', 'false'))
IMAGE_TRANSPORTS = Choices(('', 'raw', 'compressed'))
DISCOVERY_RANGES = Choices(('', 'localhost', 'subnet', 'off', 'system_default'))
LOG_LEVELS = Choices(('', 'debug', 'info', 'warn', 'error', 'fatal'))


def is_true(value: str) -> bool:
    """Tell whether a value of TRUTH says so; '' does not."""
    return TRUTH.find(value) == 'true'


@dataclass(frozen=True)
class Argument:
    """One `name:=value`; the default '' leaves it to the node, its params_file or ROS."""

    name: str
    text: str
    default: str = ''
    choices: Choices = NO_CHOICES
    type: type = str

    def parse(self, value: str) -> Any:
        """Return the value in its type; raises UserError with what is possible."""
        if self.choices:
            meant = self.choices.find(value)
            if meant is None:
                possible = ', '.join(filter(None, self.choices))
                raise UserError(f'{self.name}:={value} is none of {possible}')
            return is_true(meant) if self.type is bool else meant
        try:
            return self.type(value)
        except ValueError as error:
            raise UserError(f'{self.name}:={value} is not of type {self.type.__name__}') from error


def check_model(value: str) -> None:
    """Raise UserError where `model:=value` names a family that is not shipped; '' names none.

    What `package://` leads to may stand in the environment of the node alone.
    """
    if not value or value.startswith(SCHEME):
        return
    try:
        resolve_model(value)
    except UserError as error:
        raise UserError(f'model:={error}') from error


def number(name: str, value: str) -> float:
    """Return an argument's value as a float; raises UserError naming it."""
    found: float = Argument(name, '', type=float).parse(value)
    return found


@dataclass(frozen=True)
class Process:
    """One process: a node (with parameters and remappings) or a command (with words and flags)."""

    executable: str
    parameters: tuple[str, ...] = ()  # arguments passed as parameters of the same names
    name: str = ''  # argument with the node's name; '' = that of the executable
    remappings: tuple[tuple[str, str], ...] = ()  # name in the node, argument with the new one
    words: tuple[str, ...] = ()
    flags: tuple[tuple[str, str], ...] = ()  # flag of the command, argument that it takes or means

    @property
    def is_node(self) -> bool:
        """Whether it takes ROS arguments; a command has words of its own."""
        return not self.words


@dataclass(frozen=True)
class ProcessSet:
    """Processes that are started together, and the arguments they take."""

    name: str
    text: str
    arguments: tuple[Argument, ...]
    processes: tuple[Process, ...]

    def values(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return every argument's value; raises UserError for unknown names and bad values."""
        known = {argument.name: argument for argument in self.arguments}
        meant = {}
        for name, value in given.items():
            if name not in known:
                raise UserError(f'{self.name} has no argument {name!r}; it has {", ".join(known)}')
            if value:
                known[name].parse(value)
                meant[name] = known[name].choices.find(value) or value
        params_file = meant.get('params_file')
        if params_file and not Path(params_file).is_file():
            raise UserError(f'params_file:={params_file}: there is no such file')
        return {name: meant.get(name) or argument.default for name, argument in known.items()}


_MODEL = Argument(
    'model',
    'Bundle or family: the name of a shipped one, a folder or package://PACKAGE/PATH (default: '
    'warehouse).',
)
_CHOICE = (
    Argument('member', 'Use this member of the family alone, by name (default: the family).'),
    Argument(
        'active_member',
        'Member of the family that runs, by name (default: the most accurate one that keeps '
        'latency_budget_ms; without a budget the dense one).',
    ),
    Argument(
        'latency_budget_ms',
        'Latency budget, ms, from header stamp to published detections (default: none).',
        type=float,
    ),
)
_COMMON = (
    Argument(
        'execution_provider',
        'Where the network runs: cpu, openvino, cuda, tensorrt, …; several, best first, to fall '
        'back (default: cpu).',
    ),
    Argument(
        'trusted_keys',
        'File of public keys: only models signed by one of them are loaded (default: any model).',
    ),
    Argument('namespace', 'Namespace of all names; one for each camera.'),
    Argument('node_name', 'Name of the perception node.', 'perception_node'),
    Argument('enclave', 'Security enclave of the processes (default: /; docs/security.md).'),
    Argument('params_file', 'YAML file of parameters; arguments given here win over it.'),
    Argument(
        'autostart',
        'Configure and activate at start; false leaves it to a lifecycle manager (default: true).',
        choices=TRUTH,
        type=bool,
    ),
    Argument(
        'respawn',
        f'Start a process again {RESPAWN_DELAY_S:g} s after it ended (default: use_respawn).',
        choices=TRUTH,
        type=bool,
    ),
    Argument('use_respawn', "Nav2's name for respawn (default: false).", choices=TRUTH, type=bool),
    Argument(
        'use_sim_time', 'Take the time from /clock (default: false).', choices=TRUTH, type=bool
    ),
    Argument(
        'discovery_range',
        'ROS_AUTOMATIC_DISCOVERY_RANGE: how far nodes look for others (default: as it is set).',
        choices=DISCOVERY_RANGES,
    ),
    Argument('log_level', 'Least severity that is logged (default: info).', choices=LOG_LEVELS),
)

PERCEPTION = ProcessSet(
    'perception',
    'Detect objects in the images of one camera.',
    (
        _MODEL,
        *_CHOICE,
        Argument('image', 'Topic of the images (default: image_raw in the namespace).'),
        Argument(
            'image_transport',
            'raw, or compressed for the topic IMAGE/compressed (default: raw).',
            choices=IMAGE_TRANSPORTS,
        ),
        *_COMMON,
    ),
    (
        Process(
            'perception_node',
            parameters=(
                'model',
                'member',
                'active_member',
                'latency_budget_ms',
                'execution_provider',
                'trusted_keys',
                'image_transport',
                'autostart',
                'use_sim_time',
            ),
            name='node_name',
            remappings=(('image_raw', 'image'),),
        ),
    ),
)

SIMULATION = ProcessSet(
    'simulation',
    "Drive a simulated robot through a warehouse and detect objects in its camera's images.",
    (
        _MODEL,
        *_CHOICE,
        Argument('scene_seed', 'Which warehouse the robot drives in (default: 0).', type=int),
        Argument('rate_hz', 'Images per second (default: 15).', type=float),
        *_COMMON,
    ),
    (
        Process('simulated_robot', parameters=('scene_seed', 'rate_hz')),
        Process(
            'perception_node',
            parameters=(
                'model',
                'member',
                'active_member',
                'latency_budget_ms',
                'execution_provider',
                'trusted_keys',
                'autostart',
                'use_sim_time',
            ),
            name='node_name',
        ),
        Process(
            'pruned-perception',
            words=('monitor', '--interval', '2'),
            flags=(('--enclave', 'enclave'), ('--use-sim-time', 'use_sim_time')),
        ),
    ),
)

SETS = {each.name: each for each in (PERCEPTION, SIMULATION)}


def parse_assignments(words: Sequence[str]) -> dict[str, str]:
    """Return the values of `name:=value` words; raises UserError for any other word."""
    given = {}
    for word in words:
        name, mark, value = word.partition(':=')
        if not mark or not name:
            raise UserError(f'{word!r} is not of the form name:=value')
        given[name] = value
    return given


def arguments_of(process: Process, chosen: ProcessSet, values: Mapping[str, str]) -> list[str]:
    """Return the words that follow the executable; '' in `values` is not passed on."""
    types = {argument.name: argument for argument in chosen.arguments}
    if not process.is_node:
        words = list(process.words)
        for flag, name in process.flags:
            if types[name].type is bool:
                words += [flag] if is_true(values[name]) else []
            elif values[name]:
                words += [flag, values[name]]
        return words
    given = [name for name in process.parameters if values[name]]
    return ros_arguments(
        values[process.name] if process.name else process.executable,
        values['namespace'],
        {name: types[name].parse(values[name]) for name in given},
        remappings={name: values[topic] for name, topic in process.remappings if values[topic]},
        enclave=values['enclave'],
        params_file=values['params_file'],
        log_level=values['log_level'],
    )


def ros_arguments(
    node: str,
    namespace: str,
    parameters: Mapping[str, Any],
    *,
    remappings: Mapping[str, str] = MappingProxyType({}),
    enclave: str = '',
    params_file: str = '',
    log_level: str = '',
) -> list[str]:
    """Return a node's ROS arguments; `parameters` win over `params_file`.

    (Unless that has both a section /** and, after it, one of the node.)
    """
    words = ['--ros-args', '-r', f'__node:={node}', '-r', f'__ns:=/{namespace.strip("/")}']
    for name, topic in remappings.items():
        words += ['-r', f'{name}:={topic}']
    if enclave:
        words += ['--enclave', enclave]
    if params_file:
        words += ['--params-file', params_file]
    for name, value in parameters.items():
        # As JSON, which is YAML: a text that looks like a number stays one.
        words += ['-p', f'{name}:={json.dumps(value, ensure_ascii=False)}']
    if log_level:
        words += ['--log-level', log_level]
    return words


def module_command(module: str) -> list[str]:
    """Return the start of a command line that runs a module of this package by this Python.

    So nothing needs to be on the PATH.
    """
    return [sys.executable, '-m', f'{__name__.partition(".")[0]}.{module}']


def node_command(node: str, namespace: str, parameters: Mapping[str, Any]) -> list[str]:
    """Return the command line of one of our nodes as a process of its own."""
    return module_command(f'nodes.{node}') + ros_arguments(node, namespace, parameters)


def command_line(process: Process, chosen: ProcessSet, values: Mapping[str, str]) -> list[str]:
    """Return the whole command line of a process of a set."""
    module = f'nodes.{process.executable}' if process.is_node else 'cli.main'
    return module_command(module) + arguments_of(process, chosen, values)


def namespace_within(pushed: str, given: str) -> str:
    """Return the namespace to give a node where launch has pushed one around it ('' = none).

    What stands in a PushRosNamespace inherits the argument `namespace`, too, as a rule with the
    same value: that is meant once. An absolute namespace stands for itself, as launch has it.
    """
    names, wanted = pushed.strip('/').split('/'), given.strip('/').split('/')
    places = range(len(names) - len(wanted) + 1)
    there = any(names[place : place + len(wanted)] == wanted for place in places)
    return '' if there and not given.startswith('/') else given


def respawns(values: Mapping[str, str]) -> bool:
    """Tell whether processes that ended are started again."""
    return is_true(values['respawn'] or values['use_respawn'])


def environment(values: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to add to the processes' environment."""
    added = transport.environment(os.environ)
    if values['discovery_range']:
        added['ROS_AUTOMATIC_DISCOVERY_RANGE'] = values['discovery_range'].upper()
    return added
