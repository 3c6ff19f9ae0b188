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

"""Provable filter pruning: sensitivities of channels, under its three definitions.

Source: Liebenwein et al., Provable filter pruning (ICLR 2020); for the definitions see
`sensitivity`, for what follows from them `bounds`.
"""

from __future__ import annotations

from pruned_perception.pruning.criteria import Subject, criterion
from pruned_perception.pruning.sensitivity import Sensitivity


@criterion
def quadrants(subject: Subject) -> Sensitivity:
    """Return sensitivities per position and sign quadrant, as published."""
    return subject.sensitivity('quadrants')


@criterion
def absolute(subject: Subject) -> Sensitivity:
    """Return sensitivities per position of absolute contributions."""
    return subject.sensitivity('absolute')


@criterion
def summed(subject: Subject) -> Sensitivity:
    """Return sensitivities of absolute contributions summed over positions."""
    return subject.sensitivity('summed')
