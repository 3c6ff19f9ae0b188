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

"""What the sensitivities of ResNet-56 cost, beside a plain forward pass over the same images.

Both by turns in one run; prints the median of the rounds' ratios, and their range.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

import torch

from pruned_perception.pruning import estimate_sensitivity, trace
from pruned_perception.pruning.calibration import as_inputs
from pruned_perception.pruning.sensitivity import DEFINITIONS
from studies.cifar import resnet56

ROUNDS = 5


def main() -> None:
    """Measure on one thread."""
    torch.set_num_threads(1)
    task = resnet56()
    batches = list(task.calibration)
    images = sum(len(as_inputs(batch)[0]) for batch in batches)
    structure = trace(task.model, task.example_inputs)

    @torch.no_grad()
    def plain() -> None:
        for batch in batches:
            task.model(*as_inputs(batch))

    def estimate(definition: str) -> None:
        estimate_sensitivity(
            task.model,
            batches,
            example_inputs=task.example_inputs,
            definition=definition,
            structure=structure,
        )

    plain()
    print(f'ResNet-56, {images} images, {ROUNDS} rounds: times a plain forward pass')
    for definition in DEFINITIONS:
        work = functools.partial(estimate, definition)
        ratios = [_seconds(work) / _seconds(plain) for _ in range(ROUNDS)]
        print(
            f'{definition:10} {statistics.median(ratios):.2f} '
            f'({min(ratios):.2f} … {max(ratios):.2f})'
        )


def _seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == '__main__':
    main()
