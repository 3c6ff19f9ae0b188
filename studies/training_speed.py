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

"""Images per second of training: one CPU thread, workers that make batches, a GPU.

`python -m studies.training_speed` measures the shipped warehouse recipe (its network, sizes and
batches; frames of noise, which take as long as any) and, where CIFAR-10 is, fine-tuning ResNet-56:

* `batches`: made in this process, and by worker processes, with no network to wait for;
* `training` with one CPU thread, and as `--device` and `--workers` say; and the share of the time
  that it waits for data.

Rounds take turns, and each figure is the median. Another machine, another figure: ratios of one run
are what counts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pruned_perception._tables import Table
from pruned_perception.cli.arguments import add_compute, at_least, computing
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.compute import Compute, use_one_thread
from pruned_perception.training.detector.data import FrameSet
from pruned_perception.training.detector.experiment import read_experiment
from pruned_perception.training.detector.network import Detector
from pruned_perception.training.detector.task import learning
from pruned_perception.training.feed import Feed
from pruned_perception.training.loop import LOG, LOG_STEPS, train
from pruned_perception.training.processes import ALONE
from pruned_perception.training.recipe import Recipe
from pruned_perception.training.task import Task

EXPERIMENT = Path('config/experiments/warehouse-dense.yaml')
FRAMES = 64
OBJECTS = 16

Figures = tuple[float, float]
"""Images per second, and the share of the time that a step waits for data."""


def noise(size: tuple[int, int], classes: int) -> FrameSet:
    """Return frames of noise with as many objects as the warehouse's have at most."""
    height, width = size
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 0.8, (FRAMES, OBJECTS, 2)) * [width, height]
    boxes = np.concatenate((corners, corners + 0.15 * np.array([width, height])), axis=2)
    return FrameSet(
        images=generator.integers(0, 256, (FRAMES, height, width, 3), np.uint8),
        boxes=list(boxes.astype(np.float32)),
        class_ids=list(generator.integers(0, classes, (FRAMES, OBJECTS))),
        crowd=[np.zeros(OBJECTS, bool)] * FRAMES,
        groups=['noise'] * FRAMES,
        labels=tuple(map(str, range(classes))),
        digest='',
        notes=None,  # type: ignore[arg-type]
    )


def warehouse() -> Task:
    """Return the training of the warehouse's dense member."""
    experiment = read_experiment(EXPERIMENT)
    architecture = experiment.architecture
    assert architecture is not None
    torch.manual_seed(0)
    size = architecture.input_size
    return Task(
        model=Detector(architecture),
        example_inputs=(torch.zeros(1, 3, *size),),
        calibration=(),
        **learning(
            noise(size, architecture.num_classes), experiment.recipe, 0, architecture.strides
        ),
    )


def resnet56() -> Task | None:
    """Return ResNet-56's task; None where the images are not there."""
    from studies import cifar, cifar_data

    if not cifar_data.data_folder().is_dir():
        return None
    return cifar.resnet56()


def made(task: Task, workers: int, steps: int) -> Figures:
    """Return how many images per second come out of the pipeline alone."""
    assert task.training is not None
    feed = Feed(task.training(0), task.recipe, lambda done: 0.0, ALONE, workers=workers)
    for _ in range(1 + 2 * workers):  # until all work, and none has anything in store
        feed.next()
    began = time.perf_counter()
    for _ in range(steps):
        feed.next()
    seconds = time.perf_counter() - began
    feed.close()
    return batch_of(task.recipe) * steps / seconds, 1.0


def trained(task: Task, compute: Compute, steps: int) -> Figures:
    """Return the figures of the log, but for its first entry, in which everything is new."""
    with tempfile.TemporaryDirectory() as folder:
        budget = TrainingBudget(steps=LOG_STEPS + steps)
        train(task.model, task, budget, folder=Path(folder), compute=compute)
        lines = (Path(folder) / LOG).read_text(encoding='utf-8').splitlines()
    entries = [each for each in map(json.loads, lines[1:]) if each['kind'] == 'step']
    each = 1 if 'images_per_s' in entries[0] else batch_of(task.recipe)
    unit = 'images_per_s' if 'images_per_s' in entries[0] else 'steps_per_s'
    speeds, waits = ([entry[name] for entry in entries] for name in (unit, 'waiting'))
    return each * statistics.median(speeds), statistics.median(waits)


def batch_of(recipe: Recipe) -> int:
    """Return how many images a batch has: ResNet-56's task says it elsewhere."""
    from studies.cifar import BATCH

    return recipe.batch or BATCH


def measurements(compute: Compute, steps: int, made_steps: int) -> Iterator[tuple[str, str, Any]]:
    """Yield of what, how, and the function that measures it; the first of each kind is 1×."""
    threads: dict[str, Compute] = {'one CPU thread': Compute(torch.device('cpu'))}
    workers = compute.workers or 1
    device = compute.device or torch.device('cpu')
    precision = str(compute.precision).removeprefix('torch.')
    threads[f'{device.type} {precision}, {workers} workers'] = Compute(
        device, precision=compute.precision, workers=workers
    )
    own = warehouse()
    for count in (0, workers):
        yield 'warehouse, batches alone', f'{count} workers', _of(made, own, count, made_steps)
    for name, each in threads.items():
        yield 'warehouse, training', name, _of(trained, own, each, steps)
    if (other := resnet56()) is not None:
        for name, each in threads.items():
            yield 'ResNet-56, fine-tuning', name, _of(trained, other, each, steps)


def _of(function: Callable[..., Figures], *args: Any) -> Callable[[], Figures]:
    return lambda: function(*args)


def main() -> None:
    """Measure in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    add_compute(parser)
    parser.add_argument('--rounds', type=at_least(1), default=3, metavar='N', help='(%(default)s)')
    parser.add_argument(
        '--steps',
        type=at_least(LOG_STEPS),
        default=LOG_STEPS,
        metavar='N',
        help=f'steps of training a round, beside the first {LOG_STEPS} (%(default)s)',
    )
    parser.add_argument(
        '--batches', type=at_least(1), default=200, metavar='N', help='batches alone (%(default)s)'
    )
    parser.add_argument(
        '--only', metavar='TEXT', default='', help='only what begins so, such as "warehouse, b"'
    )
    args = parser.parse_args()
    use_one_thread()
    with computing(args) as compute:
        every = [
            each
            for each in measurements(compute, args.steps, args.batches)
            if each[0].startswith(args.only)
        ]
        found: list[list[Figures]] = [[] for _ in every]
        for _, (number, (_, _, measure)) in itertools.product(range(args.rounds), enumerate(every)):
            found[number].append(measure())
    rows, base = [], {}
    for (what, how, _), figures in zip(every, found, strict=True):
        speed, waiting = (statistics.median(each) for each in zip(*figures, strict=True))
        base.setdefault(what, speed)
        rows.append((what, how, speed, speed / base[what], waiting))
    print(Table.under('what | how | images/s:.1f | ratio:.2f | waiting:.0%', rows).to_text())


if __name__ == '__main__':
    main()
