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

"""Types of command-line arguments that several subcommands share."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pruned_perception._tables import printable
from pruned_perception.errors import UserError
from pruned_perception.inference.providers import CPU, ProviderError, parse
from pruned_perception.inference.runs import TIME_LIMIT_S

if TYPE_CHECKING:
    from pruned_perception.training.compute import Compute


class Renamed(argparse.Action):
    """An option that has another name now, or another way to be said: its `metavar`."""

    def __init__(self, option_strings: Sequence[str], dest: str, metavar: str) -> None:
        super().__init__(option_strings, dest, '*', metavar=metavar, help=argparse.SUPPRESS)

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        """Say so, and end."""
        parser.error(f'{self.option_strings[0]} is now {self.metavar}')


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line: which argument of which command, and where to read on."""

    def error(self, message: str) -> NoReturn:
        """Say it, and end with status 2."""
        self.exit(2, f'{self.prog}: error: {printable(message)}; see {self.prog} --help\n')


def number(text: str) -> float:
    """Return a finite number."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is no number') from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f'{text} is not finite')
    return value


def positive(text: str) -> float:
    """Return a finite number above 0."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f'{text} is no number above 0')
    return value


def not_negative(text: str) -> float:
    """Return a finite number, 0 or more."""
    value = number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f'{text} is less than 0')
    return value


def fraction(text: str) -> float:
    """Return a number in 0 … 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text} is not in 0 … 1')
    return value


def probability(text: str) -> float:
    """Return a number between 0 and 1, without both."""
    value = number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f'{text} does not lie between 0 and 1')
    return value


def at_least(minimum: int, maximum: float = math.inf) -> Callable[[str], int]:
    """Return a type for integers of at least `minimum`, and at most `maximum`."""

    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'{text!r} is no integer') from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f'{text} is less than {minimum}')
        if value > maximum:
            raise argparse.ArgumentTypeError(f'{text} is more than {maximum}')
        return value

    return integer


_TOKEN = r'[A-Za-z_][A-Za-z0-9_]*'
_TOPIC = re.compile(rf'(~/|/)?{_TOKEN}(/{_TOKEN})*')
_NAMESPACE = re.compile(rf'/?|/?{_TOKEN}(/{_TOKEN})*/?')
_RULE = 'letters, digits and _, parts joined by single slashes, none of which begins with a digit'


def topic(text: str) -> str:
    """Return the name of a topic, which rcl would refuse with a traceback otherwise."""
    if not _TOPIC.fullmatch(text):
        raise argparse.ArgumentTypeError(f'{text!r} is no name of a topic: {_RULE}')
    return text


def namespace(text: str) -> str:
    """Return a namespace."""
    if not _NAMESPACE.fullmatch(text):
        raise argparse.ArgumentTypeError(f'{text!r} is no namespace: {_RULE}')
    return text


def checked(option: str, kind: Callable[[str], Any], text: str) -> Any:
    """Return a part of an argument, parsed; raise UserError that names the option."""
    try:
        return kind(text)
    except argparse.ArgumentTypeError as error:
        raise UserError(f'{option}: {error}') from error


def add_time_limit(parser: argparse.ArgumentParser) -> None:
    """Declare `--time-limit`."""
    parser.add_argument(
        '--time-limit',
        type=positive,
        default=TIME_LIMIT_S,
        metavar='S',
        help=f'break off a run of the network, or its loading, after S s; default {TIME_LIMIT_S:g}',
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    """Declare `--device`, for `compute_on`."""
    parser.add_argument(
        '--device',
        default='cpu',
        metavar='NAME',
        help='where networks run: cpu (default), cuda, cuda:N, mps, or auto: what is there',
    )


def compute_on(name: str, *, quiet: bool = False) -> Compute:
    """Return where to compute, of `--device`; say what `auto` has found.

    Raises UserError where there is no such device.
    """
    from pruned_perception.training.compute import Compute, find_device

    device = find_device(name)
    if name == 'auto' and not quiet:
        print(f'device: {device}', file=sys.stderr)
    return Compute(device)


def add_compute(parser: argparse.ArgumentParser) -> None:
    """Declare `--device`, `--precision` and `--workers`, for `computing`."""
    add_device(parser)
    parser.add_argument(
        '--precision',
        choices=('auto', 'float32', 'bfloat16', 'float16'),
        default='auto',
        help='of products in training; auto (default): float32 on the CPU; on a GPU bfloat16, or '
        'float16 where it has no other',
    )
    parser.add_argument(
        '--workers',
        type=at_least(0),
        metavar='N',
        help='processes that make batches ahead (default: none on the CPU, up to 8 for a GPU)',
    )


@contextlib.contextmanager
def computing(args: argparse.Namespace) -> Iterator[Compute]:
    """Join the other processes, if torchrun has started some; return where and how to compute.

    Raises UserError where there is no such device, or the others do not answer.
    """
    from pruned_perception.training.compute import (
        Compute,
        find_device,
        find_precision,
        workers_for,
    )
    from pruned_perception.training.processes import joined

    device = find_device(args.device)
    workers = workers_for(device) if args.workers is None else args.workers
    with joined(device) as processes:
        if args.device == 'auto' and processes.rank == 0:
            print(f'device: {device}', file=sys.stderr)
        precision = find_precision(args.precision, device)
        yield Compute(device, precision=precision, processes=processes, workers=workers)


def refuse_several_processes(command: str) -> None:
    """Raise UserError where torchrun has started this process beside others."""
    if int(os.environ.get('WORLD_SIZE', '1')) > 1:
        raise UserError(
            f'{command}: torchrun starts several processes of one training, with train or '
            f'finetune; start {command} by itself'
        )


def add_execution_provider(parser: argparse.ArgumentParser) -> None:
    """Declare `--execution-provider`."""
    parser.add_argument(
        '--execution-provider',
        type=execution_provider,
        default=CPU,
        metavar='NAME',
        help='where the network runs, as far as the installed ONNX Runtime has it: openvino, cuda, '
        'tensorrt, …; several, best first, to fall back: "cuda, cpu" (%(default)s)',
    )


def execution_provider(text: str) -> str:
    """Return the text, where it can be one; see `inference.providers`."""
    try:
        parse(text)
    except ProviderError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
