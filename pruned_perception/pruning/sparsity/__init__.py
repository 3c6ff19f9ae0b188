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
