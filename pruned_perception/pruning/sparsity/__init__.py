"""Weight sparsity: method → plan → zeros in the weights.

For size alone: dense kernels run no faster on zeros. Beside it the coreset bound of a whole chain.
"""

from pruned_perception.pruning.sparsity import sipp  # noqa: F401, registers its methods
from pruned_perception.pruning.sparsity.coreset import coreset_bound, draw_coreset, measure_chain
from pruned_perception.pruning.sparsity.plan import LayerSparsity, SparsityPlan, make_plan
from pruned_perception.pruning.sparsity.selection import get, names

__all__ = [
    'LayerSparsity',
    'SparsityPlan',
    'coreset_bound',
    'draw_coreset',
    'get',
    'make_plan',
    'measure_chain',
    'names',
]
