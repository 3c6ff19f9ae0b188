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

"""Errors of the pruning stage that a user can mend."""

from pruned_perception.errors import UserError


class PruningError(UserError):
    """A network, plan or criterion that cannot be used as asked."""


class BudgetError(PruningError):
    """A budget that cannot be met; the text says the nearest that can."""


class TooFewDrivesError(PruningError):
    """Fewer than two drives show what was to be bounded."""


class CannotDifferentiateError(PruningError):
    """No gradient reaches the layers from any output of the network."""
