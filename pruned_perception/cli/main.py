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

"""Entry point of `pruned-perception`: a table of subcommands, imported only when used."""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import os
import sys
import tempfile
from collections.abc import Sequence

from pruned_perception import __version__
from pruned_perception._watchdog import leave
from pruned_perception.cli.arguments import Parser
from pruned_perception.cli.output import say
from pruned_perception.environment import add_own_prefix
from pruned_perception.errors import UserError
from pruned_perception.inference import runs

# name → one line of help. Each name is a module here (`-` becomes `_`) with the functions
# `add_arguments(parser)`, `run(args) -> int` and, where there is something to be checked that shows
# before anything slow is imported, `check(args)`; nothing is imported before it is asked for, so
# that the robot's commands never load the off-line stage's libraries.
SUBCOMMANDS: dict[str, str] = {
    'optimize': 'Make a detector faster for your robot: one command, no labels needed.',
    'detect': 'Detect objects in images, a video, a bag, a camera or a topic.',
    'bundle': 'Show or verify model bundles, or make one of an ONNX file.',
    'benchmark': 'Measure latency: networks, the node, its start.',
    'data': 'Check, convert or show an annotated data set.',
    'profile': 'Make a latency table of this machine: what convolutions cost at which widths.',
    'simulate': 'Generate a data set of the simulated warehouse.',
    'world': 'Write the simulated warehouse as a world for Gazebo or MuJoCo, or check one.',
    'train': 'Train a detector, or fine-tune a pruned one, as an experiment says.',
    'import': 'Make a checkpoint of a bundle, to prune or fine-tune it.',
    'sensitivity': 'Measure how compressible each layer of a network is, without labels.',
    'predict': 'Predict size against error from sensitivities; nothing is cut.',
    'coreset': 'Say what the coreset bound promises for a chain of ReLU layers; mostly nothing.',
    'prune': 'Prune a network, our detector or your own, to a budget.',
    'finetune': 'Train a pruned network on; interruptible.',
    'quantize': 'Make a bundle in 8 bits, where that pays on this machine.',
    'certify': 'Certify how often a pruned network decides otherwise than its parent.',
    'pruning-report': 'Make a page about a pruned network: layers, channels, errors.',
    'compare': 'Compare ways of pruning: methods × budgets × seeds, one table and plot.',
    'export': 'Export a checkpoint, or your own network, as a bundle.',
    'evaluate': 'Measure the COCO accuracy of a bundle or family on a data set.',
    'gallery': 'Show parent and members side by side on frames, failures first.',
    'models': 'Rebuild a shipped family: data, training, pruning, export, evaluation.',
    'demo': 'Run a simulated robot with two detectors, and compare them.',
    'report': 'Make the page and the summary of a demo again.',
    'up': 'Start perception or the simulation: the sets of processes of the launch files.',
    'view': 'Show a live image with boxes, latency and drops on a page of this machine.',
    'monitor': 'Watch rates, latency, drops and loss of running perception nodes.',
    'record': 'Record topics into a rosbag2 folder (MCAP).',
    'play': 'Play a rosbag2 folder onto its topics.',
}

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Of disks that are full, and of users' shares and limits of them."""

# What is imported, by the extra that brings it.
EXTRAS: dict[str, tuple[str, ...]] = {
    'train': ('torch', 'onnx', 'onnxscript', 'scipy'),
    'bench': ('jinja2', 'markupsafe', 'matplotlib', 'pycocotools', 'rosbags'),
    'sim': ('mujoco',),
    'study': ('torch_pruning',),
}
CPU_WHEELS = 'https://download.pytorch.org/whl/cpu'


def build_parser(name: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; only subcommand `name`, if given, is imported and has its arguments."""
    parser = Parser(
        prog='pruned-perception',
        description='Prune object detectors with guarantees and run them on ROS 2 robots.',
    )
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    subparsers = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for command, text in SUBCOMMANDS.items():
        subparser = subparsers.add_parser(command, help=text, description=text)
        if command == name:
            module = importlib.import_module(f'{__package__}.{command.replace("-", "_")}')
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run, check_arguments=getattr(module, 'check', None))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; 0 on success, 1 on an error of the user's input, 130 on Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    add_own_prefix()
    name = next((word for word in argv if not word.startswith('-')), None)
    before, runs.last_resort = runs.last_resort, _give_up
    try:
        parser = build_parser(name)
        if name is not None and name not in SUBCOMMANDS:
            parser.error(f'there is no command {name!r}{_nearest(name)}')
        args, unknown = parser.parse_known_args(argv)
        if unknown:
            parser.error(f'{name}: not known, or one too many: {" ".join(unknown)}')
        if args.check_arguments is not None:
            args.check_arguments(args)
        return int(args.run(args) or 0)
    except UserError as error:
        say(f'pruned-perception: error: {error}', file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        missing = (error.name or '').partition('.')[0]
        extra = next((each for each, modules in EXTRAS.items() if missing in modules), None)
        if extra is None:
            raise
        say(f'pruned-perception: error: {_needs(name, missing, extra)}', file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output (head, less) went away: nothing to report
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # what libraries write, mostly to temporary files
        if error.errno not in NO_ROOM:
            raise
        where = error.filename or f'a file, perhaps below {tempfile.gettempdir()}'
        say(
            f'pruned-perception: error: {where}: cannot be written: {error.strerror}; make room '
            'and give the command again',
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        runs.last_resort = before


def _nearest(name: str) -> str:
    """Return the commands that may have been meant."""
    near = difflib.get_close_matches(name, SUBCOMMANDS)
    return f'; did you mean {" or ".join(near)}?' if near else ''


def _needs(command: str | None, module: str, extra: str) -> str:
    """Return what a command lacks, and how to get it."""
    wheels = f' --extra-index-url {CPU_WHEELS}' if extra == 'train' else ''
    checkout = './dev shell --train in a checkout, or ' if extra == 'train' else ''
    return (
        f"{command} needs {module}, of the extra '{extra}': {checkout}"
        f"pip install 'pruned_perception[{extra}]'{wheels}"
    )


def _give_up(message: str) -> None:
    """End a command whose network does not."""
    print(f'pruned-perception: error: {message}', file=sys.stderr)
    leave(1)


if __name__ == '__main__':
    sys.exit(main())
