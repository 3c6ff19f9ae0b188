"""Methods as plain data, and cuts and fine-tuning by turns."""

from pruned_perception.pruning.pipeline.configuration import Method, pruned
from pruned_perception.pruning.pipeline.pipeline import prune_and_finetune

__all__ = [
    'Method',
    'prune_and_finetune',
    'pruned',
]
