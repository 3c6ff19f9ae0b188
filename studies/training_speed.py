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

* `batches`: made in this process, and by worker processes, with no network to wait for; and the
  CPU time that a batch takes of this process, which a training does not have for its steps;
* `training` with one CPU thread, and as `--device` and `--workers` say; and the share of the time
  that it waits for data.

With `--frames DATASET`, such as photographs, what is measured instead is a training whose batches
are dear: every frame is decoded each time it is asked for, none is kept, half of the views are
mosaics of four, and the network has half of the widths.

Rounds take turns, and each figure is the median. Another machine, another figure: ratios of one run
are what counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
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
from pruned_perception.datasets import read_dataset
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.compute import Compute, use_one_thread
from pruned_perception.training.detector.architecture import Architecture
from pruned_perception.training.detector.data import Frames, FrameSet, frame_set
from pruned_perception.training.detector.experiment import Experiment, read_experiment
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
MOSAICS = 0.5

Figures = tuple[float, float, float]
"""Images per second, the share of the time that a step waits for data, and milliseconds of CPU time
that a batch takes of this process; NaN for trainings, which do more with one."""


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
    experiment, architecture = _warehouse()
    frames = noise(architecture.input_size, architecture.num_classes)
    return _task(architecture, frames, experiment.recipe)


def photographs(folder: Path) -> Task:
    """Return the training of a network of half the widths on frames that are decoded each time."""
    notes = read_dataset(folder)
    notes.check_labelled()
    experiment, dense = _warehouse()
    recipe = experiment.recipe
    phases = tuple(dataclasses.replace(each, mosaic=MOSAICS) for each in recipe.phases)
    widths = {
        name: _halved(getattr(dense, name)) for name in ('backbone', 'neck', 'boxes', 'classes')
    }
    architecture = dataclasses.replace(dense, num_classes=len(notes.labels), **widths)
    frames = frame_set(notes, Frames(np.empty((0, *dense.input_size, 3), np.uint8), notes))
    return _task(architecture, frames, dataclasses.replace(recipe, phases=phases))


def _halved(widths: Any) -> Any:
    return widths // 2 if isinstance(widths, int) else tuple(map(_halved, widths))


def _warehouse() -> tuple[Experiment, Architecture]:
    experiment = read_experiment(EXPERIMENT)
    assert experiment.architecture is not None
    return experiment, experiment.architecture


def _task(architecture: Architecture, frames: FrameSet, recipe: Recipe) -> Task:
    torch.manual_seed(0)
    return Task(
        model=Detector(architecture),
        example_inputs=(torch.zeros(1, 3, *architecture.input_size),),
        calibration=(),
        **learning(frames, recipe, 0, architecture.strides),
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
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        feed.next()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    feed.close()
    return batch_of(task.recipe) * steps / seconds, 1.0, 1e3 * cpu / steps


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
    return each * statistics.median(speeds), statistics.median(waits), math.nan


def batch_of(recipe: Recipe) -> int:
    """Return how many images a batch has: ResNet-56's task says it elsewhere."""
    from studies.cifar import BATCH

    return recipe.batch or BATCH


def measurements(
    compute: Compute, steps: int, made_steps: int, folder: Path | None
) -> Iterator[tuple[str, str, Any]]:
    """Yield of what, how, and the function that measures it; the first of each kind is 1×."""
    threads: dict[str, Compute] = {'one CPU thread': Compute(torch.device('cpu'))}
    workers = compute.workers or 1
    device = compute.device or torch.device('cpu')
    precision = str(compute.precision).removeprefix('torch.')
    threads[f'{device.type} {precision}, {workers} workers'] = Compute(
        device, precision=compute.precision, workers=workers
    )
    name, own = ('warehouse', warehouse()) if folder is None else (folder.name, photographs(folder))
    for count in (0, workers):
        yield f'{name}, batches alone', f'{count} workers', _of(made, own, count, made_steps)
    for how, each in threads.items():
        yield f'{name}, training', how, _of(trained, own, each, steps)
    if folder is None and (other := resnet56()) is not None:
        for how, each in threads.items():
            yield 'ResNet-56, fine-tuning', how, _of(trained, other, each, steps)


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
    parser.add_argument(
        '--frames', type=Path, metavar='DATASET', help='of frames with boxes, decoded each time'
    )
    args = parser.parse_args()
    use_one_thread()
    with computing(args) as compute:
        every = [
            each
            for each in measurements(compute, args.steps, args.batches, args.frames)
            if each[0].startswith(args.only)
        ]
        found: list[list[Figures]] = [[] for _ in every]
        for _, (number, (_, _, measure)) in itertools.product(range(args.rounds), enumerate(every)):
            found[number].append(measure())
    rows, base = [], {}
    for (what, how, _), figures in zip(every, found, strict=True):
        speed, waiting, own = (statistics.median(each) for each in zip(*figures, strict=True))
        base.setdefault(what, speed)
        own_ms = None if math.isnan(own) else own
        rows.append((what, how, speed, speed / base[what], waiting, own_ms))
    header = 'what | how | images/s:.1f | ratio:.2f | waiting:.0% | own CPU, ms a batch:.1f'
    print(Table.under(header, rows).to_text())


if __name__ == '__main__':
    main()
