"""Weight sparsity: method → plan → zeros in the weights.

For size alone: dense kernels run no faster on zeros.
"""

from pruned_perception.pruning.sparsity.methods import get, names
from pruned_perception.pruning.sparsity.plan import apply, make_plan
from pruned_perception.pruning.sparsity.record import LayerSparsity, SparsityPlan

__all__ = ['LayerSparsity', 'SparsityPlan', 'apply', 'get', 'make_plan', 'names']
