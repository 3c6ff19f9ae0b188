"""What a user gives: a network, and what the steps of pruning need beside it."""

from pruned_perception.pruning.task.distillation import Distillation
from pruned_perception.pruning.task.task import Task, load_task
from pruned_perception.pruning.task.training_budget import Schedule, TrainingBudget

__all__ = [
    'Distillation',
    'Schedule',
    'Task',
    'TrainingBudget',
    'load_task',
]
