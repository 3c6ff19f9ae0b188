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

"""Training of any network, and pruning by turns with it.

A `Task` is what a user gives; a `Method` says how the network is made smaller.
"""

from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.distillation import Distillation
from pruned_perception.training.loop import Trained, finetune, train
from pruned_perception.training.method import (
    Channels,
    Function,
    LowRank,
    Method,
    Scratch,
    Sparsity,
    pruned,
    read_method,
)
from pruned_perception.training.pipeline import load_pruned, prune_and_finetune, save_pruned
from pruned_perception.training.recipe import Phase, Recipe
from pruned_perception.training.task import Task, load_task

__all__ = [
    'Channels',
    'Distillation',
    'Function',
    'LowRank',
    'Method',
    'Phase',
    'Recipe',
    'Scratch',
    'Sparsity',
    'Task',
    'Trained',
    'TrainingBudget',
    'finetune',
    'load_pruned',
    'load_task',
    'prune_and_finetune',
    'pruned',
    'read_method',
    'save_pruned',
    'train',
]
