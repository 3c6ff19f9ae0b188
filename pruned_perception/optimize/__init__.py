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

"""One command from a detector and unlabelled images to a family of faster ones.

Each step is a public function of plain objects; `optimize` calls them in order, keeps what takes
long, and goes on where it was interrupted.
"""

from pruned_perception.optimize.forecast import Forecast
from pruned_perception.optimize.frames import Picture, Split, collect, split_frames
from pruned_perception.optimize.job import Settings
from pruned_perception.optimize.parent import import_detector
from pruned_perception.optimize.probing import Probe, Prober, Target, measure_sensitivity
from pruned_perception.optimize.run import Outcome, optimize

__all__ = [
    'Forecast',
    'Outcome',
    'Picture',
    'Probe',
    'Prober',
    'Settings',
    'Split',
    'Target',
    'collect',
    'import_detector',
    'measure_sensitivity',
    'optimize',
    'split_frames',
]
