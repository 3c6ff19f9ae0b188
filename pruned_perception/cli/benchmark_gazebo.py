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

"""`pruned-perception benchmark gazebo`: the node on a camera in Gazebo, accuracy and latency.

It starts Gazebo without a window, the bridges and a driver along the route itself. The latency pass
measures from the bridge's wall-clock stamp: rendering is not in it.

Exit status: 0 measured, 1 could not be measured.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pruned_perception._io import write_text
from pruned_perception.benchmark import gazebo
from pruned_perception.cli.arguments import at_least
from pruned_perception.cli.benchmark_result import DEFAULT_MODEL, PASSED
from pruned_perception.cli.output import say
from pruned_perception.nodes.gazebo import PASSES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = __doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        '--model', default=DEFAULT_MODEL, help=f'bundle or family ({DEFAULT_MODEL})'
    )
    parser.add_argument(
        '--member',
        dest='members',
        nargs='+',
        default=[''],
        help='members of the family, by turns, e.g. dense tenth (the dense one)',
    )
    parser.add_argument('--world', default=gazebo.WORLD, help=f'({gazebo.WORLD})')
    parser.add_argument('--route', default=gazebo.ROUTE, help=f'or none ({gazebo.ROUTE})')
    parser.add_argument(
        '--pass',
        dest='passes',
        choices=PASSES,
        action='append',
        help='only this one (both)',
    )
    parser.add_argument(
        '--seconds', type=float, default=60.0, help='of each pass, by the wall clock (60)'
    )
    parser.add_argument(
        '--budget', dest='budget_ms', type=float, default=0.0, help='latency_budget_ms (none)'
    )
    parser.add_argument('--threads', type=at_least(1), default=1, help='threads of one run (1)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the result there, too')
    parser.add_argument('--html', type=Path, metavar='FILE', help='write a page there, too')


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    setup = gazebo.Setup(
        model=args.model,
        members=tuple(args.members),
        world=args.world,
        route=args.route,
        passes=tuple(args.passes or PASSES),
        seconds=args.seconds,
        threads=args.threads,
        budget_ms=args.budget_ms,
    )
    result = gazebo.measure(setup, say)
    print(gazebo.pass_table(result).to_text())
    print(gazebo.loss_table(result).to_text())
    classes = gazebo.class_table(result)
    if classes is not None:
        print(classes.to_text())
    for remark in result.remarks:
        say(remark)
    if args.json is not None:
        write_text(args.json, json.dumps(gazebo.as_json(result), indent=2) + '\n')
    if args.html is not None:
        write_text(args.html, gazebo.render(result))
    return PASSED
