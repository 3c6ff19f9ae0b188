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

"""Pruning a detector without labels: cut, refitted, and taught by its parent on unlabelled frames.

frames → views → parent's outputs and features → losses → the pruned network
"""

from pruned_perception.training.label_free.agreement import Likeness
from pruned_perception.training.label_free.prediction import Prediction, predict_label_free
from pruned_perception.training.label_free.prune import Lessons, prune_label_free
from pruned_perception.training.label_free.recipe import RECIPES, LabelFree
from pruned_perception.training.label_free.record import (
    LabelFreeRecord,
    LabelFreeResult,
    LabelFreeStage,
)

__all__ = [
    'RECIPES',
    'LabelFree',
    'LabelFreeRecord',
    'LabelFreeResult',
    'LabelFreeStage',
    'Lessons',
    'Likeness',
    'Prediction',
    'predict_label_free',
    'prune_label_free',
]
