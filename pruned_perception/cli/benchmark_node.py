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

"""`pruned-perception benchmark node`: the node on a source of frames, and a gate for CI.

Exit status: 0 passed, or there were no limits; 3 a limit was not kept; 1 it could not be measured.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pruned_perception._io import write_text
from pruned_perception.benchmark import node
from pruned_perception.benchmark.overhead import interval_text
from pruned_perception.benchmark.series import Series
from pruned_perception.cli.arguments import add_execution_provider, at_least, fraction
from pruned_perception.cli.benchmark_result import DEFAULT_MODEL, FAILED, PASSED
from pruned_perception.cli.output import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = __doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        '--model',
        dest='models',
        nargs='+',
        default=[DEFAULT_MODEL],
        help=f'bundles or families, by turns; the first is the baseline ({DEFAULT_MODEL})',
    )
    parser.add_argument('--active-member', default='', help='member of the families that runs')
    parser.add_argument(
        '--source',
        default=node.SYNTHETIC,
        metavar='synthetic | sim | images:DIR | bag:PATH | topic:NAME',
        help='sim, and images:DIR of an annotated data set, have a ground truth (synthetic)',
    )
    parser.add_argument(
        '--rate', dest='rates', type=_rates, default=(30.0,), help='Hz, e.g. 10,30,60 (30)'
    )
    parser.add_argument('--load', type=at_least(0), default=0, help='busy processes beside it (0)')
    parser.add_argument('--rounds', type=at_least(1), default=6, help='of all of it (6)')
    parser.add_argument('--seconds', type=float, default=5.0, help='of each run (5)')
    parser.add_argument(
        '--budget', dest='budget_ms', type=float, default=0.0, help='latency_budget_ms (none)'
    )
    parser.add_argument('--threads', type=at_least(1), default=1, help='threads of one run (1)')
    add_execution_provider(parser)
    parser.add_argument('--width', type=at_least(16), default=640, help='synthetic (640)')
    parser.add_argument('--height', type=at_least(16), default=480, help='synthetic (480)')
    parser.add_argument('--max-p90', type=float, metavar='MS', help='end to end, outside')
    parser.add_argument('--min-ap50', type=fraction, metavar='X', help='of the published boxes')
    parser.add_argument(
        '--max-miss-rate', type=fraction, metavar='X', help='of the frames received, for --budget'
    )
    parser.add_argument(
        '--json',
        type=Path,
        nargs='?',
        const=Path('-'),
        metavar='FILE',
        help='write the result there too, with the environment; without FILE print it instead',
    )
    parser.add_argument('--markdown', type=Path, metavar='FILE', help='write the table there too')


def run(args: argparse.Namespace) -> int:
    """Measure, print, and compare with the limits."""
    limits = node.Limits(args.max_p90, args.min_ap50, args.max_miss_rate)
    setup = node.Setup(
        models=tuple(args.models),
        source=args.source,
        rates=args.rates,
        load=args.load,
        rounds=args.rounds,
        seconds=args.seconds,
        budget_ms=args.budget_ms,
        active_member=args.active_member,
        threads=args.threads,
        execution_provider=args.execution_provider,
        width=args.width,
        height=args.height,
    )
    quiet = args.json == Path('-')
    figures = node.measure(setup, (lambda *_: None) if quiet else _print_series)
    failed = node.failures(figures, limits)
    content = json.dumps(node.as_json(figures, setup, failed), indent=2)
    table = node.as_table(figures)
    if quiet:
        print(content)
    else:
        print(table.to_text())
        for each in figures if len(setup.models) > 1 else []:
            for name, ratio in (('p50', each.p50_ratio), ('p90', each.p90_ratio)):
                say(
                    f'{each.model} at {each.rate:g} Hz : the first, {name}, median of rounds: '
                    f'{ratio.median:.2f} ({interval_text(ratio.interval)})'
                )
        for text in failed:
            say(f'FAILED: {text}')
        if args.json is not None:
            write_text(args.json, content + '\n')
    if args.markdown is not None:
        write_text(args.markdown, table.to_markdown() + '\n')
    return FAILED if failed else PASSED


def _rates(text: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(each) for each in text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r}: rates are numbers, e.g. 10,30,60') from None
    if not all(0 < each <= 1000 for each in rates):
        raise argparse.ArgumentTypeError(f'{text}: rates lie in 0 … 1000 Hz')
    return rates


def _print_series(model: str, series: Series) -> None:
    counts = series.counts
    say(
        f'{model}: received {counts["received"]}, published {counts["published"]}, superseded '
        f'{counts["superseded"]}{", SATURATED" if series.saturated else ""}'
    )
