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

"""What several processes of one training come to, started by `torchrun` as a user would.

`python test/measure_processes.py` prints how far the losses of two processes are from one's with
the same batches, over 50 steps; and, for each of five random steps, at which the second process is
killed, how long the other lives on, and whether the same command then ends with the same weights.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import blobs
import torch
from torch import Tensor, nn

from pruned_perception.training import loop
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.compute import Compute
from pruned_perception.training.loop import train
from pruned_perception.training.processes import joined

STEPS = 50


def work(folder: Path, kill: int) -> None:
    """Train in this process, which may be one of several; write losses and weights."""
    torch.set_num_threads(1)
    steps: list[int] = []
    losses: list[float] = []

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        steps.append(1)
        if len(steps) == kill and processes.rank == 1:
            (folder / 'killed').write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
        images, labels = batch
        return nn.functional.cross_entropy(model(images), labels)

    def add(log: Any, values: dict[str, float]) -> None:
        losses.append(values['total'])

    loop._Log.add = add  # type: ignore[method-assign]
    loop.CHECKPOINT_SECONDS = 0.05
    task = blobs.task(step=step)
    with joined(torch.device('cpu')) as processes:
        network = train(
            task.model,
            task,
            TrainingBudget(steps=STEPS),
            folder=folder / 'run',
            compute=Compute(processes=processes),
        ).network
        if processes.rank == 0:
            torch.save({'losses': losses, 'weights': network.state_dict()}, folder / 'end.pt')


def started(folder: Path, *, processes: int = 2, kill: int = 0) -> tuple[int, dict[str, Any]]:
    """Run `work` in so many processes; return the exit status and what it wrote."""
    folder.mkdir(exist_ok=True)
    launcher = [sys.executable]
    if processes > 1:
        launcher += ['-m', 'torch.distributed.run', '--standalone']
        launcher += ['--nproc-per-node', str(processes)]
    command = [*launcher, __file__, '--work', str(folder), '--kill', str(kill)]
    with (folder / 'log').open('a', encoding='utf-8') as log:
        status = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    end = folder / 'end.pt'
    return status, torch.load(end) if end.is_file() else {}


def measure(kills: int) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, one = started(folder / 'one', processes=1)
        _, two = started(folder / 'two')
        pairs = list(zip(one['losses'], two['losses'], strict=True))
        gap = max(abs(a - b) for a, b in pairs)
        print(f'{len(pairs)} steps: losses of two processes and of one differ by {gap:.1e} at most')
        for number in range(kills):
            kill = random.randint(2, STEPS - 1)
            here = folder / f'killed-{number}'
            status, _ = started(here, kill=kill)
            lived = time.time() - float((here / 'killed').read_text())
            said = 'another process of it has ended' in (here / 'log').read_text()
            again, end = started(here)
            same = again == 0 and all(
                torch.equal(value, end['weights'][each]) for each, value in two['weights'].items()
            )
            print(
                f'killed at step {kill}: exit status {status} after {lived:.1f} s, '
                f'{"with" if said else "WITHOUT"} a message; '
                f'then {len(end["losses"])} more steps, {"same" if same else "OTHER"} weights'
            )


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--kills', type=int, default=5, metavar='N', help='(%(default)s)')
    parser.add_argument('--work', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('--kill', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work is not None:
        work(args.work, args.kill)
    else:
        measure(args.kills)


if __name__ == '__main__':
    main()
