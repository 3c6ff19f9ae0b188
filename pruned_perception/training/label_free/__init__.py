"""Pruning a detector without labels: cut, refitted, and taught by its parent on unlabelled frames.

frames → views → parent's outputs and features → losses → the pruned network
"""

from pruned_perception.training.label_free.agreement import Likeness
from pruned_perception.training.label_free.prediction import Prediction, predict_label_free
from pruned_perception.training.label_free.prune import prune_label_free
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
    'Likeness',
    'Prediction',
    'predict_label_free',
    'prune_label_free',
]
