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

"""`pruned-perception prune`: a network made smaller, within a budget, and what is known of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruned_perception.cli.arguments import Renamed, add_device, compute_on
from pruned_perception.cli.output import check_output
from pruned_perception.cli.pruning_inputs import (
    Network,
    Watched,
    add_calibration,
    add_method,
    add_network,
    add_positions,
    check_network,
    curves_of,
    emit,
    load_network,
    method_of,
    read_json,
)
from pruned_perception.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from pruned_perception.cli.progress import Progress
    from pruned_perception.pruning.budget import Budget
    from pruned_perception.pruning.plan import AnyPlan, Plan
    from pruned_perception.report.findings import Findings
    from pruned_perception.training.method import Channels, Cut, PruningRecord

BUDGETS = ('macs', 'params', 'ms', 'error', 'same_widths_as')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `prune`."""
    add_network(parser)
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='FILE',
        help='the pruned network; beside it, as .json, the plan and what was measured',
    )
    budget = parser.add_argument_group('budget (one of them)')
    budget.add_argument('--macs', type=float, metavar='X', help='share of the MACs to keep, 0 … 1')
    budget.add_argument('--params', type=float, metavar='X', help='share of the parameters to keep')
    budget.add_argument(
        '--ms',
        type=float,
        metavar='X',
        help="milliseconds that it may take on the robot, by the robot's latency table",
    )
    budget.add_argument(
        '--table', type=Path, metavar='FILE', help='for --ms: what `profile` wrote on the robot'
    )
    budget.add_argument(
        '--force', action='store_true', help='take a table of another machine than this one'
    )
    budget.add_argument(
        '--error', type=float, metavar='E', help='a-priori error that every layer may have'
    )
    budget.add_argument(
        '--same-widths-as',
        type=Path,
        metavar='FILE',
        help="another result's allocation (its .pt or .json), to compare criteria",
    )
    add_method(parser)
    for old, new in (('--low-rank', 'low_rank'), ('--sparsity', 'sparsity')):
        parser.add_argument(old, action=Renamed, metavar=f'--kind {new} --criterion NAME')
    add_calibration(parser)
    add_positions(parser)
    add_device(parser)
    parser.add_argument('--report', type=Path, metavar='FILE', help='page about it, as HTML')
    parser.add_argument('--json', action='store_true', help='print plan and errors as JSON')


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what shows without PyTorch."""
    if sum(getattr(args, name) is not None for name in BUDGETS) != 1:
        raise UserError('give exactly one of --macs, --params, --ms, --error and --same-widths-as')
    if (args.ms is None) != (args.table is None):
        raise UserError('--ms and --table go together: the time, and what `profile` wrote')
    check_network(args)
    for path in (args.out, args.report):
        check_output(path)
    if args.out.suffix == '.json':
        raise UserError(f'--out {args.out}: is for the network, like small.pt; plan and errors '
                           'go into a .json beside it')  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Plan, measure, cut, recalibrate, write."""
    from pruned_perception.cli.progress import Progress
    from pruned_perception.training.method import Channels

    compute = compute_on(args.device)
    how = method_of(args)
    if not isinstance(how, Channels):
        _check_other_kind(args, how.kind)
    network = load_network(args).placed(compute)
    with Progress('pruning') as bar:
        if isinstance(how, Channels):
            small, findings = _channels(args, how, network, bar)
            plan: AnyPlan = findings.plan
            data, text = findings.to_dict(), findings.to_text()
        else:
            small, record = _other_kind(args, how, network)
            assert record.plan is not None
            plan, data = record.plan, record.to_dict()
            text = record.to_text()
        _save(args.out, network, small, plan, args.calibration)
        _write_findings(args.out, data)
    if args.report is not None:
        from pruned_perception.report.page import write_report

        write_report(findings, args.report)
        text += f'\n\nreport: {args.report}'
    emit(args.json, {'out': str(args.out), **data}, f'{text}\n\nwritten: {args.out}')
    return 0


def _check_other_kind(args: argparse.Namespace, kind: str) -> None:
    from pruned_perception.pruning import PruningError

    if args.task is None:
        raise PruningError(
            f'kind {kind!r}: with --task only; of our detector, channels and ranks of layers are '
            'cut together by --ranks'
        )
    if args.ms is not None and kind != 'low_rank':
        raise PruningError(f'--ms is for channels and low rank, and not for kind {kind!r}')
    for name in ('same_widths_as', 'report'):
        if getattr(args, name) is not None:
            option = name.replace('_', '-')
            raise PruningError(f'--{option} is for channels, and does not go with kind {kind!r}')


def _channels(
    args: argparse.Namespace, how: Channels, network: Network, bar: Progress
) -> tuple[nn.Module, Findings]:
    from dataclasses import replace

    from pruned_perception.pruning import PruningError
    from pruned_perception.pruning.measurement import measure_errors
    from pruned_perception.pruning.outcome import finish, with_nearest
    from pruned_perception.report.findings import Findings

    task, calibration = network.task, network.calibration
    if calibration is None and (how.refit or args.report is not None):
        option = '--refit' if how.refit else '--report'
        raise PruningError(f'{option} looks at images: give --calibration DATASET')
    unit = next(name for name in BUDGETS if getattr(args, name) is not None)
    widths = _widths(args.same_widths_as) if unit == 'same_widths_as' else None
    bar.phase('choosing channels', None, '')
    budget = None if widths is not None else _budget(args, unit)
    planner = how.planner(
        task if calibration is None else replace(task, calibration=Watched(calibration, bar)),
        args.seed,
        positions=args.positions,
    )
    plan = planner.plan(budget, widths)
    measured = None
    if calibration is not None:
        bar.phase('measuring errors', None, '')
        measured = measure_errors(
            task.model,
            plan,
            Watched(calibration, bar),
            positions=args.positions,
            seed=args.seed,
        )
    share = plan.macs / plan.dense_macs
    findings = Findings(f'{network.name} at {share:.0%} of the MACs', plan, measured)
    if args.report is not None:
        findings = _with_sensitivities(findings, args, network, bar)
    bar.phase('cutting', None, '')
    small = planner.cut(plan)
    if calibration is None:
        return small, findings
    bar.phase('fitting, and comparing outputs', None, '')
    refit, frames = how.refits(tuned=False), Watched(calibration, bar)
    small, outcome = finish(
        task.model, small, frames, plan=plan, refit=refit, seed=args.seed, loss=task.loss
    )
    if outcome is not None and outcome.collapses:
        bar.phase('looking for a budget that holds', None, '')
        outcome = with_nearest(outcome, budget, planner, seed=args.seed)
    return small, replace(findings, outcome=outcome)


def _budget(args: argparse.Namespace, unit: str) -> Budget:
    from pruned_perception.training.method import budget_from

    if unit != 'ms':
        return budget_from(unit, getattr(args, unit))
    from pruned_perception.benchmark.profile import target
    from pruned_perception.inference.latency_table import read_table
    from pruned_perception.pruning import Latency

    table = read_table(args.table)
    table.check_target(target(table.target.threads), force=args.force)
    return Latency(args.ms, table)


def _with_sensitivities(
    findings: Findings, args: argparse.Namespace, network: Network, bar: Progress
) -> Findings:
    """Return the findings with the sensitivities and curves that the report shows."""
    from dataclasses import replace

    from pruned_perception.pruning import estimate_sensitivity
    from pruned_perception.pruning.sensitivity import DEFINITIONS

    assert network.calibration is not None
    criterion = findings.plan.criterion
    bar.phase('sensitivities for the report', None, '')
    found = estimate_sensitivity(
        network.task.model,
        Watched(network.calibration, bar),
        example_inputs=network.task.example_inputs,
        definition=criterion if criterion in DEFINITIONS else 'absolute',
        positions=args.positions,
        seed=args.seed,
    )
    curves = curves_of(found)
    return replace(findings, sensitivity=found, curves=curves)


def _other_kind(
    args: argparse.Namespace, how: Cut, network: Network
) -> tuple[nn.Module, PruningRecord]:
    import warnings

    from pruned_perception.training.method import pruned

    budget = _budget(args, next(name for name in BUDGETS if getattr(args, name) is not None))
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='this network collapses')  # printed in the end
        return pruned(network.task, how, budget, args.seed)


def _widths(path: Path) -> dict[str, int]:
    """Return the widths of a plan in what `prune` wrote."""
    from pruned_perception.pruning import Plan, PruningError
    from pruned_perception.report.findings import Findings
    from pruned_perception.training.checkpoint import read_checkpoint

    if path.suffix == '.json':
        plan: Plan = read_json(path, lambda data: Findings.from_dict(data).plan)
        return plan.widths
    content = read_checkpoint(path)
    plans = [each['plan'] for each in content.get('plans', ()) if each['kind'] == 'channels']
    found = content.get('ancestry', {}).get('plan') or (plans[-1] if plans else None)
    if found is None:
        raise PruningError(f'{path}: not a pruned network: it has no plan')
    return Plan.from_dict(found).widths


def _save(
    path: Path, network: Network, small: nn.Module, plan: AnyPlan, calibration: Path | None
) -> None:
    """Write a checkpoint of our detector, or the weights and plans of a user's network."""
    from pruned_perception.training.pipeline import save_pruned

    if network.checkpoint is None:
        save_pruned(path, small, (*network.plans, plan))
        return
    from pruned_perception.datasets import read_dataset
    from pruned_perception.training.checkpoint import save_checkpoint, weights_of
    from pruned_perception.training.detector.checkpoint import SEEN, descent, seen
    from pruned_perception.training.detector.network import Detector

    content = network.checkpoint
    assert isinstance(small, Detector)
    sets = {} if calibration is None else {'calibration': read_dataset(calibration)}
    save_checkpoint(
        path,
        {
            **{key: content[key] for key in ('experiment', 'labels', 'data')},
            'architecture': small.architecture.to_dict(),
            'weights': weights_of(small),
            'steps': 0,
            'cpu_seconds': 0.0,
            SEEN: seen(content, **sets),
            'ancestry': descent(content, plan.to_dict()),
        },
    )


def _write_findings(path: Path, data: dict[str, Any]) -> None:
    from pruned_perception._io import write_json

    write_json(path.with_suffix('.json'), data)
