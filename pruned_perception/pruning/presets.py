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

"""Published methods by their names: what each sets of the choices that there are.

Presets are defaults: whatever is given beside one counts instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pruned_perception.pruning.errors import PruningError


@dataclass(frozen=True)
class Preset:
    """Fields of a method of one kind, as files and the command line name them, and the source."""

    kind: str
    fields: Mapping[str, Any]
    source: str

    def __str__(self) -> str:
        kind = {} if self.kind == 'channels' else {'kind': self.kind}
        return ', '.join(f'{name} {value}' for name, value in {**kind, **self.fields}.items())


PRESETS: dict[str, Preset] = {
    'pfp': Preset(
        'channels',
        {
            'criterion': 'quadrants',
            'allocation': 'equal_error',
            'selection': 'mixed',
            'round_to': 1,
        },
        'Liebenwein et al., Provable filter pruning (ICLR 2020)',
    ),
    'thinet': Preset(
        'channels',
        {'criterion': 'thinet', 'allocation': 'uniform'},
        'Luo et al., ThiNet (ICCV 2017)',
    ),
    'filter_norms': Preset(
        'channels',
        {'criterion': 'filter_l1', 'allocation': 'uniform'},
        'Li et al., Pruning filters for efficient ConvNets (ICLR 2017)',
    ),
    'taylor': Preset(
        'channels',
        {'criterion': 'taylor', 'allocation': 'global_ranking'},
        'Molchanov et al., Importance estimation for neural network pruning (CVPR 2019)',
    ),
    'alds': Preset(
        'low_rank',
        {'criterion': 'alds'},
        'Liebenwein et al., Towards determining the optimal layer-wise decomposition '
        '(NeurIPS 2021)',
    ),
    'pca': Preset(
        'low_rank',
        {'criterion': 'pca'},
        'Zhang et al., Accelerating very deep convolutional networks (TPAMI 2016)',
    ),
    'l_rank': Preset(
        'low_rank',
        {'criterion': 'l_rank'},
        'Idelbayev and Carreira-Perpiñán, Low-rank compression of neural nets (CVPR 2020)',
    ),
    'sipp': Preset(
        'sparsity',
        {'criterion': 'sipp_hybrid'},
        'Baykal et al., SiPPing neural networks (SIAM J. Math. Data Sci. 2022)',
    ),
    'snip': Preset('sparsity', {'criterion': 'snip'}, 'Lee et al., SNIP (ICLR 2019)'),
    'magnitude': Preset(
        'sparsity',
        {'criterion': 'magnitude'},
        'Han et al., Learning both weights and connections (NeurIPS 2015)',
    ),
}


# What is done where nothing is named, if there are calibration images: of all that the project's
# studies compare, it keeps most where no fine-tuning follows (docs/cifar_pruning.md). With it goes
# a refit, where held-out frames show that it helps (`outcome`). None: blocks that fit each group.
RECOMMENDED: Mapping[str, Any] = {
    'criterion': 'joint_error',
    'allocation': 'least_error',
    'allocation_by': 'centred_fisher',
    'round_to': None,
}


def find_preset(name: str, kind: str | None = None) -> Preset:
    """Return the preset of that name; raise PruningError where it is unknown or of another kind."""
    if name not in tuple(PRESETS):  # which may be anything, in a user's file
        raise PruningError(f'method: unknown {name!r}; there are {", ".join(PRESETS)}')
    preset = PRESETS[name]
    if kind not in (None, preset.kind):
        raise PruningError(f'method: {name!r} is of kind {preset.kind!r}, not {kind!r}')
    return preset
