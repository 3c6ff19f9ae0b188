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

"""`pruned-perception benchmark watch`: the node with and without its watch, interleaved."""

from __future__ import annotations

import argparse

from pruned_perception.benchmark import overhead, watch
from pruned_perception.cli import benchmark_overhead
from pruned_perception.cli.arguments import fraction
from pruned_perception.cli.benchmark_result import write_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: those of `benchmark overhead`, and the share."""
    benchmark_overhead.add_arguments(parser)
    parser.add_argument(
        '--share', type=fraction, default=0.02, help='frames that are compared (0.02)'
    )
    parser.set_defaults(pairs=8, frames=900)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    benchmark_overhead.check_frames(args)
    values = {key: value for key, value in vars(args).items() if key not in ('output', 'share')}
    setup = overhead.Setup(**values)
    print(
        f'{setup.pairs} pairs of {setup.frames} frames, {setup.width} × {setup.height} at '
        f'{setup.rate:g} Hz, the first {setup.warm_up} of each are warm-up; a share of '
        f'{args.share:g} is compared; milliseconds\n'
        f'{"":10} {"e2e_receive":>23} {"inference":>10}   {"":9}\n'
        f'{"":10} {"p50":>7} {"p90":>7} {"p99":>7} {"p50":>10}   compared, without time',
        flush=True,
    )
    result = watch.measure(setup, args.share, _print_run)
    offers = watch.Offers(**result['offers_us'])
    print(
        f"the node's own thread, a frame: {offers.not_drawn_p50:.1f} µs (p99 "
        f'{offers.not_drawn_p99:.1f}), one that is compared {offers.drawn_p50:.0f} µs (p99 '
        f'{offers.drawn_p99:.0f})'
    )
    for name, ratio in result['ratio'].items():
        print(
            f'e2e_receive {name}, watched : alone, median of {len(ratio["pairs"])} pairs: '
            f'{ratio["median"]:.3f} ({overhead.interval_text(ratio["interval"])})'
        )
    write_result(result, args.output)
    return 0 if all(each['balanced'] for each in result['runs']) else 1


def _print_run(run: overhead.Run, watched: bool) -> None:
    e2e = run.e2e_receive
    account = f'{run.compared}, {run.skipped}' if watched else '–'
    print(
        f'{"watched" if watched else "alone":10} {e2e.p50:7.2f} {e2e.p90:7.2f} {e2e.p99:7.2f} '
        f'{run.inference.p50:10.2f}   {account}'
        f'{"" if run.balanced else "  FRAMES DO NOT ADD UP"}',
        flush=True,
    )
