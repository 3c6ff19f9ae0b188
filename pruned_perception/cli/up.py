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

"""`pruned-perception up`: start a set of processes where there is no ros2 launch."""

from __future__ import annotations

import argparse
import os

from pruned_perception.cli.arguments import checked, namespace, topic
from pruned_perception.nodes import up
from pruned_perception.nodes.up import SETS, ProcessSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = '\n\n'.join(map(describe, SETS.values()))
    parser.add_argument('set', choices=sorted(SETS), help='the set of processes')
    parser.add_argument('assignments', nargs='*', metavar='name:=value', help='see below')
    parser.add_argument(
        '-p', '--print', action='store_true', help='print the command lines, start nothing'
    )


def run(args: argparse.Namespace) -> int:
    """Run the set until Ctrl-C or SIGTERM; 1 where all processes ended and one had failed."""
    import shlex

    from pruned_perception.nodes.supervisor import Supervisor

    chosen = SETS[args.set]
    values = chosen.values(up.parse_assignments(args.assignments))
    for name, kind in (('namespace', namespace), ('image', topic)):
        if value := values.get(name):
            checked(f'{name}:={value}', kind, str(value))
    up.check_model(values['model'])
    commands = {
        f'{process.executable}-{number}': up.command_line(process, chosen, values)
        for number, process in enumerate(chosen.processes, start=1)
    }
    added = up.environment(values)
    if args.print:
        prefix = [f'{name}={value}' for name, value in added.items()]
        for command in commands.values():
            print(shlex.join([*prefix, *command]))
        return 0
    return Supervisor(
        commands,
        {**os.environ, **added, 'PYTHONUNBUFFERED': '1'},
        respawn_delay=up.RESPAWN_DELAY_S if up.respawns(values) else None,
    ).run()


def describe(chosen: ProcessSet) -> str:
    """Return the set and its arguments, one below the other."""
    width = max(len(argument.name) for argument in chosen.arguments)
    lines = [f'{chosen.name}: {chosen.text}']
    for argument in chosen.arguments:
        choices = [each for each in argument.choices if each]
        text = argument.text + (f' One of {", ".join(choices)}.' if choices else '')
        default = f' (default: {argument.default})' if argument.default else ''
        lines.append(f'  {argument.name:<{width}}  {text}{default}')
    return '\n'.join(lines)
