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
import math
from collections.abc import Callable, Sequence

from pruned_perception.inference.providers import CPU, ProviderError, parse
from pruned_perception.inference.runs import TIME_LIMIT_S


class Renamed(argparse.Action):
    """An option that has another name now, or another way to be said: its `metavar`."""

    def __init__(self, option_strings: Sequence[str], dest: str, metavar: str) -> None:
        super().__init__(option_strings, dest, '*', metavar=metavar, help=argparse.SUPPRESS)

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        """Say so, and end."""
        parser.error(f'{self.option_strings[0]} is now {self.metavar}')


def fraction(text: str) -> float:
    """Return a number in 0 … 1."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is no number') from None
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text} is not in 0 … 1')
    return value


def at_least(minimum: int) -> Callable[[str], int]:
    """Return a type for integers of at least `minimum`."""

    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'{text!r} is no integer') from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f'{text} is less than {minimum}')
        return value

    return integer


def add_time_limit(parser: argparse.ArgumentParser) -> None:
    """Declare `--time-limit`."""
    parser.add_argument(
        '--time-limit',
        type=_seconds,
        default=TIME_LIMIT_S,
        metavar='S',
        help=f'break off a run of the network, or its loading, after S s; default {TIME_LIMIT_S:g}',
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


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is no number') from None
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f'{text} is no number above 0')
    return value
