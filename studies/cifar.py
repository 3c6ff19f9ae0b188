"""CIFAR-10 ResNets as tasks for `pruned-perception sensitivity`, `prune`, `compare` and the rest.

`studies.cifar:resnet20`, `:resnet44` and `:resnet56`. Calibration and fine-tuning see 45,000 of the
50,000 training images, choices the other 5,000, and the 10,000 test images are for the one look in
the end and for certificates. The published networks were trained on all 50,000: on the held-out
images the parents are nearly perfect, so figures there only compare methods with one another.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from pruned_perception.pruning.graph.cost import count
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.task import Task
from studies.cifar_data import Images, load_test, load_training, training_batches
from studies.cifar_resnet import pretrained

CALIBRATION_IMAGES = 256
BATCH = 128
# The parents': 200 epochs of 50,000 images in batches of 128.
PARENT_STEPS = 200 * 391

Batch = tuple[Tensor, Tensor]


def resnet20() -> Task:
    """Return ResNet-20: 91.73 % of the test images right, 40.8 MMAC."""
    return task(20)


def resnet44() -> Task:
    """Return ResNet-44: 93.10 % of the test images right, 97.4 MMAC."""
    return task(44)


def resnet56() -> Task:
    """Return ResNet-56: 93.39 % of the test images right, 125.7 MMAC."""
    return task(56)


def task(depth: int) -> Task:
    """Return the task of the ResNet of that depth; images are read when they are needed."""
    model = pretrained(depth).to(memory_format=torch.channels_last)
    return Task(
        model=model,
        example_inputs=(torch.zeros(1, 3, 32, 32),),
        calibration=[inputs for inputs, _ in calibration_batches()],
        training=_training,
        step=cross_entropy,
        trained_for=TrainingBudget(steps=PARENT_STEPS),
        evaluate=lambda network: {'accuracy': accuracy(network, _held_out())},
        test=lambda network: {'accuracy': accuracy(network, _test())},
        holdout=_HoldOut(),
    )


def calibration_batches() -> list[Batch]:
    """Return the first CALIBRATION_IMAGES of the images to train on, with labels."""
    return list(load_training()[0][:CALIBRATION_IMAGES].batches(BATCH))


def cross_entropy(network: nn.Module, batch: Batch) -> Tensor:
    """Return the mean loss of a batch."""
    inputs, labels = batch
    return functional.cross_entropy(network(inputs), labels)


@torch.no_grad()
def accuracy(network: nn.Module, images: Images) -> float:
    """Return the percentage of images that a network in evaluation mode gets right."""
    right = 0
    for inputs, labels in images.batches(BATCH):
        right += int((network(inputs).argmax(1) == labels).sum())
    return 100 * right / len(images)


class _HoldOut:
    """The test images in batches, read when somebody asks."""

    def __iter__(self) -> Iterator[Tensor]:
        return (inputs for inputs, _ in _test().batches(BATCH))


def _training(seed: int) -> Iterator[Batch]:
    return training_batches(load_training()[0], BATCH, seed)


def _held_out() -> Images:
    return load_training()[1]


@functools.cache
def _test() -> Images:
    return load_test()


def main() -> None:
    """Print what the parents get right, and cost."""
    torch.set_num_threads(1)
    for name, make in (
        ('ResNet-20', resnet20),
        ('ResNet-44', resnet44),
        ('ResNet-56', resnet56),
    ):
        made = make()
        cost = count(made.model, made.example_inputs)
        print(
            f'{name}: {accuracy(made.model, _test()):.2f} % of the test images, '
            f'{accuracy(made.model, _held_out()):.2f} % of the held-out training images, '
            f'{cost.macs:,} MACs, {cost.parameters:,} parameters'
        )


if __name__ == '__main__':
    main()
