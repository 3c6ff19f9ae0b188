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

"""Detection on the robot: image → tensor → network → boxes, on ONNX Runtime alone.

The names below are imported when they are first used: a node joins the robot's network before it
loads ONNX Runtime and OpenCV, and finds its camera meanwhile.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruned_perception.inference.detections import Candidates, Detections
    from pruned_perception.inference.detector import Detector, Settings
    from pruned_perception.inference.engine import create_session
    from pruned_perception.inference.errors import ImageError, InferenceError
    from pruned_perception.inference.frame_times import FrameTimes

__all__ = [
    'Candidates',
    'Detections',
    'Detector',
    'FrameTimes',
    'ImageError',
    'InferenceError',
    'Settings',
    'create_session',
]

_HOMES = {
    'Candidates': 'detections',
    'Detections': 'detections',
    'Detector': 'detector',
    'FrameTimes': 'frame_times',
    'ImageError': 'errors',
    'InferenceError': 'errors',
    'Settings': 'detector',
    'create_session': 'engine',
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'{__name__}.{_HOMES[name]}'), name)
