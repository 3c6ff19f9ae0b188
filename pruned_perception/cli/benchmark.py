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

"""`pruned-perception benchmark NAME …`: a table of benchmarks, imported only when asked for."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from pruned_perception.cli.arguments import Parser
from pruned_perception.cli.output import check_output
from pruned_perception.errors import UserError

# name → one line of help. Each is a module `cli.benchmark_<name>` with `add_arguments(parser)`
# and `run(args) -> int`, like a subcommand.
BENCHMARKS: dict[str, str] = {
    'contract': 'whether a family keeps its latency budget while load comes and goes',
    'engine': 'latency of networks in the engine alone, by turns, and their ratios',
    'gazebo': 'accuracy and latency of the node on a camera in Gazebo, in two passes',
    'node': 'latency, drops and accuracy of the node on a source of frames; a gate for CI',
    'overhead': 'what a frame costs outside the network: perception node against echo node',
    'soak': 'whether memory, descriptors or threads of the node grow while it runs',
    'watch': 'what watching the certificate costs a frame: the node with it and without, by turns',
    'startup': 'process start to first detection, against a bare script; memory',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the name; what follows it is the benchmark's own."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    table = '\n'.join(f'  {name:10} {text}' for name, text in BENCHMARKS.items())
    parser.epilog = f'benchmarks (NAME --help tells more):\n{table}'
    parser.add_argument('name', metavar='NAME', help=' | '.join(BENCHMARKS))
    parser.add_argument('rest', nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark."""
    if args.name not in BENCHMARKS:
        raise UserError(f'no benchmark {args.name!r}; there are {", ".join(BENCHMARKS)}')
    module = importlib.import_module(f'{__package__}.benchmark_{args.name}')
    parser = Parser(
        prog=f'pruned-perception benchmark {args.name}', description=BENCHMARKS[args.name]
    )
    module.add_arguments(parser)
    own = parser.parse_args(args.rest)
    for name in ('output', 'json', 'markdown'):
        path = getattr(own, name, None)
        if isinstance(path, Path) and path != Path('-'):
            check_output(path)
    return int(module.run(own))
