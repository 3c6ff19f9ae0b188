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
import shlex
import sys
from pathlib import Path

from pruned_perception._io import write_text
from pruned_perception.benchmark import node, node_gate, node_page
from pruned_perception.benchmark.frame_source import BAG, IMAGES, MAX, SYNTHETIC, TOPIC, Source
from pruned_perception.benchmark.series import Series
from pruned_perception.cli.arguments import (
    add_execution_provider,
    at_least,
    checked,
    fraction,
    not_negative,
    positive,
    topic,
)
from pruned_perception.cli.benchmark_result import DEFAULT_MODEL, FAILED, PASSED
from pruned_perception.cli.output import say
from pruned_perception.inference.sources import open_source


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
        default=SYNTHETIC,
        metavar='synthetic | sim | images:DIR | bag:PATH | topic:NAME',
        help='sim, and images:DIR of an annotated data set, have a ground truth; bag:PATH:/TOPIC '
        'where the recording has several (synthetic)',
    )
    parser.add_argument(
        '--rate',
        dest='rates',
        type=_rates,
        default=(),
        help='Hz, e.g. 10,30,60,max (30; of topic: its own); max: each frame follows the answer to '
        'the one before',
    )
    parser.add_argument('--load', type=at_least(0), default=0, help='busy processes beside it (0)')
    parser.add_argument('--rounds', type=at_least(1), default=6, help='of all of it (6)')
    parser.add_argument('--seconds', type=positive, default=5.0, help='of each run (5)')
    parser.add_argument(
        '--budget',
        dest='budget_ms',
        type=not_negative,
        default=0.0,
        help='latency_budget_ms (none)',
    )
    parser.add_argument('--threads', type=at_least(1), default=1, help='threads of one run (1)')
    add_execution_provider(parser)
    parser.add_argument('--width', type=at_least(16), default=640, help='synthetic (640)')
    parser.add_argument('--height', type=at_least(16), default=480, help='synthetic (480)')
    parser.add_argument('--max-p90', type=positive, metavar='MS', help='end to end, outside')
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
    parser.add_argument('--markdown', type=Path, metavar='FILE', help='write the tables there too')
    parser.add_argument('--html', type=Path, metavar='FILE', help='write one page there, too')


def run(args: argparse.Namespace) -> int:
    """Measure, print, and compare with the limits."""
    limits = node_gate.Limits(args.max_p90, args.min_ap50, args.max_miss_rate)
    names = ('source', 'rates', 'load', 'rounds', 'seconds', 'budget_ms', 'active_member')
    sizes = ('threads', 'width', 'height', 'execution_provider')
    setup = node.Setup(
        models=tuple(args.models), **{name: getattr(args, name) for name in (*names, *sizes)}
    )
    source = Source.parse(args.source)
    if source.kind in (IMAGES, BAG):
        open_source(source.value)  # what is no source, before a node is started for it
    elif source.kind == TOPIC:
        checked('--source', topic, source.value)
    quiet = args.json == Path('-')
    measured = node.measure(setup, (lambda *_: None) if quiet else _print_series)
    failed = node_gate.failures(measured.figures, limits)
    same = node_gate.same_twice(measured.figures)
    content = json.dumps(node_page.as_json(measured, failed), indent=2, allow_nan=False)
    if quiet:
        print(content)
    else:
        for table in (node_page.latency_table, node_page.account_table, node_page.stage_table):
            print(f'\n{table(measured).to_text()}')
        print()
        for text in (*node_page.ratio_lines(measured), *same, *node_page.remarks(measured)):
            say(text)
        for text in failed:
            say(f'FAILED: {text}')
        if args.json is not None:
            write_text(args.json, content + '\n')
    if args.markdown is not None:
        write_text(args.markdown, node_page.as_markdown(measured, failed, same) + '\n')
    if args.html is not None:
        command = shlex.join(['pruned-perception', *sys.argv[1:]])
        write_text(args.html, node_page.as_page(measured, failed, same, command))
    return FAILED if failed else PASSED


def _rates(text: str) -> tuple[float, ...]:
    try:
        rates = tuple(MAX if each == 'max' else float(each) for each in text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r}: rates are numbers, or max, e.g. 10,30,60,max'
        ) from None
    if not all(0 < each <= 1000 or each == MAX for each in rates):
        raise argparse.ArgumentTypeError(f'{text}: rates lie in 0 … 1000 Hz')
    return tuple(dict.fromkeys(rates))


def _print_series(model: str, series: Series) -> None:
    counts = series.counts
    say(
        f'{model}: received {counts["received"]}, published {counts["published"]}, superseded '
        f'{counts["superseded"]}'
    )
