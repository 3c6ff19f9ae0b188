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

"""`pruned-perception finetune`: a pruned network trained on, for a while; interruptible."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruned_perception.cli.arguments import (
    Renamed,
    add_compute,
    at_least,
    computing,
    not_negative,
    positive,
)
from pruned_perception.cli.output import check_output
from pruned_perception.cli.pruning_inputs import (
    Network,
    add_network,
    check_network,
    emit,
    load_network,
)
from pruned_perception.cli.train import INTERRUPTED
from pruned_perception.errors import UserError

if TYPE_CHECKING:
    from pruned_perception.training.budget import TrainingBudget
    from pruned_perception.training.loop import Trained
    from pruned_perception.training.recipe import Recipe
    from pruned_perception.training.task import Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `finetune`."""
    add_network(parser)
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FILE', help='the fine-tuned network'
    )
    parser.add_argument('--cpu-minutes', type=positive, metavar='X', help='CPU time to train for')
    parser.add_argument('--steps', type=at_least(1), metavar='N', help='or so many steps')
    parser.add_argument(
        '--epochs', type=positive, metavar='X', help='or passes over the training data'
    )
    parser.add_argument(
        '--wall-minutes', type=positive, metavar='X', help='or time of training steps'
    )
    parser.add_argument(
        '--learning-rate',
        type=positive,
        metavar='X',
        help="highest one (default: the checkpoint's own; 0.01 of a task)",
    )
    parser.add_argument(
        '--distill',
        type=not_negative,
        nargs='?',
        const=1.0,
        metavar='WEIGHT',
        help='learn from the dense network too, so many times as much as from the labels (1)',
    )
    add_compute(parser)
    parser.add_argument('--seed', type=at_least(0), default=0, help='of the batches (%(default)s)')
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


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what shows without PyTorch."""
    check_output(args.out)
    budgets = (args.cpu_minutes, args.steps, args.epochs, args.wall_minutes)
    if sum(each is not None for each in budgets) != 1:
        raise UserError('give exactly one of --cpu-minutes, --steps, --epochs, --wall-minutes')
    check_network(args)


def run(args: argparse.Namespace) -> int:
    """Train, write, print; the same command goes on after an interruption."""
    from pruned_perception._processes import Interrupted
    from pruned_perception.cli.progress import Progress
    from pruned_perception.pruning.records import from_dict, names_of
    from pruned_perception.training.budget import TrainingBudget
    from pruned_perception.training.distillation import Distillation
    from pruned_perception.training.loop import train

    given = {name: getattr(args, name) for name in names_of(TrainingBudget)}
    given = {name: value for name, value in given.items() if value is not None}
    budget = TrainingBudget(**given)
    distillation = None
    if args.distill is not None:
        distillation = from_dict(Distillation, {'weight': args.distill}, 'distill.')
    network, task = _inputs(args)
    folder = args.folder or args.out.with_suffix('.run')
    rate = {} if args.learning_rate is None else {'learning_rate': args.learning_rate}
    recipe = task.recipe.changed(rate)
    with computing(args) as compute:
        before = _figures(task.evaluate, compute.placed(task.model))
        first = compute.processes.rank == 0
        try:
            with Progress('fine-tuning') if first else nullcontext() as bar:
                trained = train(
                    task.model,
                    task,
                    budget,
                    recipe=recipe,
                    teacher=None if args.distill is None else task.teacher,
                    distillation=distillation,
                    masks={k: mask for plan in network.plans for k, mask in plan.masks.items()},
                    seed=args.seed,
                    folder=folder,
                    report=bar.phase if bar else None,
                    title='fine-tuning',
                    compute=compute,
                )
        except Interrupted:
            if first:
                print(f'interrupted; the same command goes on from {folder}', file=sys.stderr)
            return INTERRUPTED
        after = _figures(task.evaluate, compute.placed(trained.network))
    if not first:
        return 0
    _save(args, network, trained, recipe, budget)
    result = {
        'steps': trained.steps,
        'cpu_seconds': round(trained.cpu_seconds, 1),
        'before': before,
        'after': after,
    }
    emit(args.json, {'out': str(args.out), **result}, _text(args.out, result))
    return 0


def _inputs(args: argparse.Namespace) -> tuple[Network, Task]:
    """Return the network with its task, to be trained and, for `--distill`, taught."""
    from pruned_perception.pruning import PruningError

    if args.checkpoint is None:
        folders = {name: getattr(args, name) for name in ('teacher', 'train', 'validation')}
        network = load_network(args, **folders)
        if network.task.teacher is not None:
            return network, network.task
        return network, replace(network.task, teacher=network.parent)

    from pruned_perception.datasets import read_dataset
    from pruned_perception.datasets.fingerprints import check_apart
    from pruned_perception.training.checkpoint import read_checkpoint
    from pruned_perception.training.detector.checkpoint import detector_from
    from pruned_perception.training.detector.deployment import folded
    from pruned_perception.training.detector.experiment import recipe_of
    from pruned_perception.training.detector.task import labelled_frames, learning

    if args.train is None or args.validation is None:
        raise PruningError('give --train DATASET and --validation DATASET, to train and to judge')
    if (args.distill is None) != (args.teacher is None):
        raise PruningError('--distill WEIGHT and --teacher CHECKPOINT go together')
    network = load_network(args, validation=args.validation)
    content = network.checkpoint
    assert content is not None
    frames = labelled_frames(args.train, content, args.checkpoint)
    check_apart(frames.notes, read_dataset(args.validation))
    earlier = len(content['ancestry'].get('earlier_plans', ()))
    levels = detector_from(content, args.checkpoint).strides
    fields = learning(frames, recipe_of(content['experiment']), earlier, levels)
    if args.teacher is not None:
        teacher = read_checkpoint(args.teacher)
        fields['teacher'] = folded(detector_from(teacher, args.teacher))
    return network, replace(network.task, **fields)


def _save(
    args: argparse.Namespace,
    network: Network,
    trained: Trained,
    recipe: Recipe,
    budget: TrainingBudget,
) -> None:
    """Write the weights of a user's network with its plans, or a checkpoint of our detector."""
    from pruned_perception.datasets import read_dataset
    from pruned_perception.training.checkpoint import save_checkpoint, weights_of
    from pruned_perception.training.detector.checkpoint import SEEN, seen
    from pruned_perception.training.pipeline import save_pruned

    if network.checkpoint is None:
        save_pruned(args.out, trained.network, network.plans)
        return
    former, notes = network.checkpoint, read_dataset(args.train)
    origins = ('parent', 'prune', 'control_of', 'distill')
    experiment = {
        **{key: each for key, each in former['experiment'].items() if key not in origins},
        'name': args.out.stem,
        'data': {'train': str(args.train), 'validation': str(args.validation)},
        'budget': budget.to_dict(),
        'architecture': former['architecture'],
        'seed': args.seed,
        **recipe.to_dict(),
    }
    if args.distill is not None:
        experiment['distill'] = {'weight': args.distill}
    save_checkpoint(
        args.out,
        {
            **{key: former[key] for key in ('architecture', 'labels', 'ancestry')},
            'experiment': experiment,
            'data': {'train': notes.digest, 'frames': len(notes.paths)},
            'weights': weights_of(trained.network),
            'steps': trained.steps,
            'cpu_seconds': trained.cpu_seconds,
            SEEN: seen(former, training=notes, validation=read_dataset(args.validation)),
        },
    )


def _figures(evaluate: Any, network: Any) -> dict[str, float]:
    if evaluate is None:
        return {}
    from pruned_perception.pruning.graph.device import fed_from_cpu

    with fed_from_cpu(network):
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
