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

"""Which levers last through fine-tuning, each beside nets of the same widths from scratch.

The parent of this study is trained here, within minutes, so that a control from scratch can have
all the time that parent and child had together; no control can make up for the days behind
published weights. Plain 3×3 convolutions on CIFAR-10, after our detector.

    python -m studies.levers studies/results/levers_parent.pt       # the parent, once
    pruned-perception compare studies/levers.yaml --results studies/results/levers
"""

from __future__ import annotations

import argparse
import os
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from pruned_perception.pruning import count
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.checkpoint import save_checkpoint
from pruned_perception.training.loop import train
from pruned_perception.training.outcomes import share_right
from pruned_perception.training.recipe import Recipe
from pruned_perception.training.task import Task
from studies.cifar import accuracy, calibration_batches, cross_entropy, right
from studies.cifar_data import load_test, load_training, training_batches

WIDTHS = ((32, 1), (48, 2), (48, 1), (96, 2), (96, 1), (128, 2), (128, 1))  # channels, stride
CLASSES = 10
BATCH = 64
PARENT = TrainingBudget(cpu_minutes=6)
PARENT_RECIPE = Recipe(learning_rate=0.1)


def network() -> nn.Sequential:
    """Return the untrained net: (B, 3, 32, 32) → (B, 10)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = 3
    for number, (width, stride) in enumerate(WIDTHS, start=1):
        layers[f'conv{number}'] = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        layers[f'norm{number}'] = nn.BatchNorm2d(width)
        layers[f'relu{number}'] = nn.ReLU(inplace=True)
        inputs = width
    layers['pool'] = nn.AdaptiveAvgPool2d(1)
    layers['flatten'] = nn.Flatten()
    layers['classes'] = nn.Linear(inputs, CLASSES)
    return nn.Sequential(layers)


def task() -> Task:
    """Return the task; the parent's weights are the comparison's `weights`."""
    return Task(
        model=network().eval().to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        example_inputs=(torch.zeros(1, 3, 32, 32),),
        calibration=[inputs for inputs, _ in calibration_batches()],
        training=lambda seed: training_batches(load_training()[0], BATCH, seed),
        step=cross_entropy,
        trained_for=PARENT,
        evaluate=lambda net: share_right(right(net, load_training()[1])),
        test=lambda net: share_right(right(net, load_test())),
    )


def main() -> None:
    """Train the parent; an interrupted training goes on where it was."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('weights', type=Path, help='file for the state dict')
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    made = task()
    trained = train(
        made.model,
        made,
        PARENT,
        recipe=PARENT_RECIPE,
        folder=args.weights.with_suffix('.run'),
    )
    save_checkpoint(args.weights, {'weights': trained.network.state_dict()})
    right = accuracy(trained.network, load_training()[1])
    cost = count(trained.network, made.example_inputs)
    print(
        f'{os.fspath(args.weights)}: {right:.2f} % of the held-out images, {cost.macs:,} MACs, '
        f'{cost.parameters:,} parameters, {trained.steps} steps'
    )


if __name__ == '__main__':
    main()
