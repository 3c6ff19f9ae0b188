"""What mends a pruned network: batch norms measured again, refitting, training on."""

from pruned_perception.pruning.finetuning.loop import finetune
from pruned_perception.pruning.finetuning.recalibration import recalibrate
from pruned_perception.pruning.finetuning.refit import refit

__all__ = [
    'finetune',
    'recalibrate',
    'refit',
]
