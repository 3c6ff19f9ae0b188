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

"""Errors of the inference that a user can mend."""

from pruned_perception.errors import UserError
from pruned_perception.images.errors import ImageError

__all__ = ['BrokenOffError', 'DeviationError', 'ImageError', 'InferenceError']


class InferenceError(UserError):
    """A model that cannot be run as its manifest says, or that returned nonsense."""


class BrokenOffError(InferenceError):
    """A run of the network did not end in time, and was broken off."""


class DeviationError(InferenceError):
    """A network in 8 bits that computes something else here than where it was made."""
