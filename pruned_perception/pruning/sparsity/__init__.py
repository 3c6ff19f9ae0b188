"""Weight sparsity: method → plan → zeros in the weights.

For size alone: dense kernels run no faster on zeros.
"""

from pruned_perception.pruning.sparsity import sipp  # noqa: F401, registers its methods
from pruned_perception.pruning.sparsity.plan import LayerSparsity, SparsityPlan, apply, make_plan
from pruned_perception.pruning.sparsity.selection import get, names

__all__ = ['LayerSparsity', 'SparsityPlan', 'apply', 'get', 'make_plan', 'names']
