"""`pruned-perception finetune`: a pruned network trained on, for a while; interruptible."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruned_perception.cli.arguments import Renamed, at_least
from pruned_perception.cli.pruning_inputs import (
    Network,
    add_network,
    check_output,
    emit,
    load_network,
)
from pruned_perception.cli.train import INTERRUPTED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `finetune`."""
    add_network(parser)
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FILE', help='the fine-tuned network'
    )
    parser.add_argument('--cpu-minutes', type=float, metavar='X', help='CPU time to train for')
    parser.add_argument('--steps', type=at_least(1), metavar='N', help='or so many steps')
    parser.add_argument(
        '--learning-rate',
        type=float,
        metavar='X',
        help="highest one (default: the checkpoint's own; 0.01 of a task)",
    )
    parser.add_argument(
        '--distill',
        type=float,
        nargs='?',
        const=1.0,
        metavar='WEIGHT',
        help='learn from the dense network too, so many times as much as from the labels (1)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the batches (%(default)s)')
    parser.add_argument(
        '--folder',
        type=Path,
        metavar='DIR',
        help='what an interrupted run needs to go on (default: OUT with .run for its suffix)',
    )
    ours = parser.add_argument_group('with a checkpoint')
    ours.add_argument('--train', type=Path, metavar='DATASET', help='data set to train on')
    ours.add_argument('--validation', type=Path, metavar='DATASET', help='data set to judge by')
    ours.add_argument(
        '--teacher', type=Path, metavar='CHECKPOINT', help='the dense network, for --distill'
    )
    parser.add_argument('--parent', action=Renamed, metavar='--teacher')
    parser.add_argument('--json', action='store_true', help='print the result as JSON')


def run(args: argparse.Namespace) -> int:
    """Train, write, print; the same command goes on after an interruption."""
    from pruned_perception.pruning import PruningError
    from pruned_perception.training.budget import TrainingBudget

    check_output(args.out)
    given = {name: getattr(args, name) for name in ('cpu_minutes', 'steps')}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) != 1:
        raise PruningError('give exactly one of --cpu-minutes and --steps')
    budget = TrainingBudget.from_dict(given)
    folder = args.folder or args.out.with_suffix('.run')
    if args.checkpoint is not None:
        result = _detector(args, budget.to_dict(), folder)
    else:
        network = load_network(args, teacher=args.teacher, train=args.train,
                               validation=args.validation)  # fmt: skip
        result = _own(args, network, budget, folder)
    if result is None:
        print(f'interrupted; run the same command again to go on from {folder}', file=sys.stderr)
        return INTERRUPTED
    emit(args.json, {'out': str(args.out), **result}, _text(args.out, result))
    return 0


def _own(
    args: argparse.Namespace, network: Network, budget: Any, folder: Path
) -> dict[str, Any] | None:
    """Fine-tune a user's network; return the result, None where it was interrupted."""
    from pruned_perception._processes import Interrupted
    from pruned_perception.cli.progress import Progress
    from pruned_perception.training.budget import Schedule
    from pruned_perception.training.distillation import Distillation
    from pruned_perception.training.loop import Progress as State
    from pruned_perception.training.loop import finetune
    from pruned_perception.training.pipeline import save_pruned

    task, last = network.task, State(0.0, 0, 0.0, 0.0)
    rate = {} if args.learning_rate is None else {'learning_rate': args.learning_rate}
    masks = {name: mask for plan in network.plans for name, mask in plan.masks.items()}
    before = _figures(task.evaluate, task.model)
    with Progress('fine-tuning') as bar:

        def report(state: State) -> None:
            nonlocal last
            last = state
            bar.phase('fine-tuning', state.fraction, f'step {state.steps}, loss {state.loss:.4g}')

        try:
            tuned = finetune(
                task.model,
                task,
                budget,
                schedule=Schedule.from_dict(rate),
                teacher=None if args.distill is None else network.parent,
                distillation=None if args.distill is None else Distillation(args.distill),
                masks=masks,
                seed=args.seed,
                folder=folder,
                report=report,
            )
        except Interrupted:
            return None
    save_pruned(args.out, tuned, network.plans)
    return {
        'steps': last.steps,
        'cpu_seconds': round(last.cpu_seconds, 1),
        'before': before,
        'after': _figures(task.evaluate, tuned),
    }


def _detector(
    args: argparse.Namespace, budget: Mapping[str, Any], folder: Path
) -> dict[str, Any] | None:
    """Fine-tune our detector as its experiment trained it; None where it was interrupted."""
    from dataclasses import replace

    from pruned_perception.cli.progress import Progress
    from pruned_perception.pruning import PruningError
    from pruned_perception.training.detector.checkpoint import (
        detector_from,
        read_checkpoint,
        save_checkpoint,
    )
    from pruned_perception.training.detector.data import load_frames
    from pruned_perception.training.detector.experiment import (
        Budget,
        Distillation,
        recorded_experiment,
    )
    from pruned_perception.training.detector.loop import train

    if args.train is None or args.validation is None:
        raise PruningError('give --train DATASET and --validation DATASET, to train and to judge')
    if (args.distill is None) != (args.teacher is None):
        raise PruningError('--distill WEIGHT and --teacher CHECKPOINT go together')
    network = load_network(args, validation=args.validation)
    content = network.checkpoint
    assert content is not None
    model = detector_from(content, args.checkpoint)
    experiment = recorded_experiment(content['experiment'])
    rate = args.learning_rate or experiment.optimiser.learning_rate
    experiment = replace(
        experiment,
        name=args.out.stem,
        data={'train': str(args.train), 'validation': str(args.validation)},
        budget=Budget(**budget),
        architecture=model.architecture,
        optimiser=replace(experiment.optimiser, learning_rate=rate),
        seed=args.seed,
        distill=None if args.distill is None else Distillation(args.distill),
        parent=None,
        prune=None,
        control_of=None,
    )
    frames, validation = (
        load_frames(each, model.input_size, labels=content['labels'], owner=str(args.checkpoint))
        for each in (args.train, args.validation)
    )
    evaluate = network.task.evaluate
    teacher = None
    if args.teacher is not None:
        teacher = detector_from(read_checkpoint(args.teacher), args.teacher)
    with Progress('fine-tuning') as bar:
        bar.phase('judging the pruned network', None, '')
        before = _figures(evaluate, model)
        outcome = train(
            experiment,
            model,
            frames,
            validation,
            folder,
            budget=Budget(**budget),
            ancestry=content['ancestry'],
            teacher=teacher,
            report=bar.phase,
        )
        if not outcome.finished:
            return None
        final = read_checkpoint(outcome.checkpoint)
        save_checkpoint(args.out, {k: v for k, v in final.items() if k != 'format'})
        bar.phase('judging the fine-tuned network', None, '')
        after = _figures(evaluate, detector_from(final, args.out))
    return {
        'steps': outcome.steps,
        'cpu_seconds': round(outcome.cpu_seconds, 1),
        'before': before,
        'after': after,
    }


def _figures(evaluate: Any, network: Any) -> dict[str, float]:
    if evaluate is None:
        return {}
    return {name: float(value) for name, value in evaluate(network.eval()).items()}


def _text(out: Path, result: Mapping[str, Any]) -> str:
    figures = ', '.join(
        f'{name} {value:.4g} → {result["after"][name]:.4g}'
        for name, value in result['before'].items()
    )
    minutes = result['cpu_seconds'] / 60
    return (
        f'{result["steps"]:,} steps, {minutes:.1f} CPU minutes'
        f'{": " if figures else ""}{figures}\nwritten: {out}'
    )
