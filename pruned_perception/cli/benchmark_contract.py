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

"""`pruned-perception benchmark contract`: a family under a budget while load comes and goes."""

from __future__ import annotations

import argparse
from pathlib import Path

from pruned_perception.benchmark import contract
from pruned_perception.cli.arguments import at_least, positive
from pruned_perception.cli.benchmark_result import DEFAULT_MODEL, FAILED, PASSED, write_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('--model', default=DEFAULT_MODEL, help=f'family ({DEFAULT_MODEL})')
    parser.add_argument(
        '--budget', dest='budget_ms', type=positive, default=30.0, help='latency budget, ms (30)'
    )
    parser.add_argument('--load', type=at_least(1), default=2, help='busy processes (2)')
    parser.add_argument('--rounds', type=at_least(1), default=3, help='of each node (3)')
    parser.add_argument(
        '--seconds', type=positive, default=8.0, help='without load, with it, and without again (8)'
    )
    parser.add_argument('--rate', type=positive, default=30.0, help='frames per second (30)')
    parser.add_argument('--threads', type=at_least(1), default=1, help='threads of one run (1)')
    parser.add_argument('--output', type=Path, metavar='FILE', help='write the result as JSON')


def run(args: argparse.Namespace) -> int:
    """Measure and print; a status of its own where the contract is not kept."""
    values = {key: value for key, value in vars(args).items() if key != 'output'}
    setup = contract.Setup(**values)
    print(
        f'budget {setup.budget_ms:g} ms, {setup.rate:g} Hz, {setup.load} busy processes in the '
        f'second of three times {setup.seconds:g} s; frames that missed the budget, of those sent\n'
        f'{"node":10} {"idle":>7} {"first 2 s":>10} {"loaded":>7} {"after 3 s":>10}  members',
        flush=True,
    )
    result = contract.measure(setup, _print_run)
    verdict = contract.Verdict(**result['verdict'])
    print(
        f'under load, medians: family {_percent(verdict.family_misses)}, echo '
        f'{_percent(verdict.echo_misses)}, dense {_percent(verdict.dense_misses)}'
        + ('' if verdict.dense_misses >= 0.5 else ' (the load is too light to tell much)')
    )
    for what, reached in (
        (f'at most the echo node + {100 * contract.ALLOWANCE:g} point', verdict.kept),
        (f'back within {contract.RETURN_S:g} s', verdict.returned),
        (f'at most {contract.MOST_SWITCHES} switches per change of load', verdict.calm),
    ):
        print(f'{"reached" if reached else "MISSED ":8} {what}')
    write_result(result, args.output)
    return PASSED if verdict.kept and verdict.returned and verdict.calm else FAILED


def _print_run(run: contract.Run) -> None:
    back = '' if run.returned_s is None else f', back {run.returned_s:.2f} s after the load'
    members = ', '.join(f'{model} from {at:.2f} s' for at, model in run.members)
    print(
        f'{run.node:10} {_percent(run.missed_idle):>7} {_percent(run.missed_settling):>10} '
        f'{_percent(run.missed_loaded):>7} {_percent(run.missed_after):>10}  {members}{back}',
        flush=True,
    )


def _percent(rate: float | None) -> str:
    return '–' if rate is None else f'{100 * rate:.1f} %'
