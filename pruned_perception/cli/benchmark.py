"""`pruned-perception benchmark NAME …`: a table of benchmarks, imported only when asked for."""

from __future__ import annotations

import argparse
import importlib

from pruned_perception.errors import UserError

# name → one line of help. Each is a module `cli.benchmark_<name>` with `add_arguments(parser)`
# and `run(args) -> int`, like a subcommand.
BENCHMARKS: dict[str, str] = {
    'engine': 'latency of networks in the engine alone, by turns, and their ratios',
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
    parser = argparse.ArgumentParser(
        prog=f'pruned-perception benchmark {args.name}', description=BENCHMARKS[args.name]
    )
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(args.rest)))
