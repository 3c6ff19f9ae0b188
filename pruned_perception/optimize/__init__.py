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
