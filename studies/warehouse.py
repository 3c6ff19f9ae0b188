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

"""The dense member of models/warehouse as a task for `compare`.

Its checkpoint and the simulator's data are where `pruned-perception models` puts them:

    pruned-perception models --steps data
    pruned-perception import models/warehouse/dense --out CACHE/runs/warehouse-dense/final.pt \
        --calibration CACHE/warehouse/train
    pruned-perception compare studies/warehouse_one_shot.yaml --results studies/results/warehouse
"""

from __future__ import annotations

from pruned_perception.environment import cache_folder
from pruned_perception.training.detector.task import detector_task
from pruned_perception.training.task import Task


def detector() -> Task:
    """Return the task: judged by AP50 of 400 validation frames, PyTorch's outputs decoded."""
    data = cache_folder() / 'warehouse'
    return detector_task(
        cache_folder() / 'runs/warehouse-dense/final.pt',
        calibration=data / 'train',
        train=data / 'train',
        validation=data / 'validation',
    )
