"""Detection on the robot: image → tensor → network → boxes, on ONNX Runtime alone."""

from pruned_perception.inference.detections import Candidates, Detections
from pruned_perception.inference.detector import Detector, Settings, StageTimes, create_session
from pruned_perception.inference.errors import ImageError, InferenceError

__all__ = [
    'Candidates',
    'Detections',
    'Detector',
    'ImageError',
    'InferenceError',
    'Settings',
    'StageTimes',
    'create_session',
]
