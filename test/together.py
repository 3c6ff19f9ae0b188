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

"""Several processes as `torchrun` starts them, but forked: they need not import anything again."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable

import cv2
import torch

from pruned_perception.errors import UserError
from pruned_perception.training.compute import Compute
from pruned_perception.training.processes import joined

LIMIT_S = 120.0
REFUSED = 3
"""Exit status of a process that ended by a UserError."""


def run_together(count: int, function: Callable[[Compute], object]) -> list[int | None]:
    """Call a function in so many processes; return their exit statuses, by rank.

    0 where it returned, `REFUSED` after a UserError, whose text is printed, -9 where it was killed.
    """
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    cv2.setNumThreads(1)  # forked copies of threads never answer
    context = multiprocessing.get_context('fork')
    processes = [
        context.Process(target=_run, args=(rank, count, port, function)) for rank in range(count)
    ]
    for each in processes:
        each.start()
    for each in processes:
        each.join(LIMIT_S)
    stuck = [each for each in processes if each.is_alive()]
    for each in stuck:
        each.kill()
        each.join()
    assert not stuck, f'{len(stuck)} of {count} processes did not end'
    return [each.exitcode for each in processes]


def _run(rank: int, count: int, port: int, function: Callable[[Compute], object]) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        'RANK': str(rank),
        'LOCAL_RANK': str(rank),
        'WORLD_SIZE': str(count),
        'LOCAL_WORLD_SIZE': str(count),
        'MASTER_ADDR': '127.0.0.1',
        'MASTER_PORT': str(port),
    }
    status = 0
    try:
        with joined(torch.device('cpu')) as processes:
            function(Compute(processes=processes))
    except UserError as error:
        print(f'process {rank}: {error}', flush=True)
        status = REFUSED
    except BaseException:
        traceback.print_exc()
        status = 1
    os._exit(status)
