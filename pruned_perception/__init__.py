"""Object detection for ROS 2 robots with neural networks pruned with guarantees."""

from pruned_perception.environment import switch_telemetry_off

__version__ = '0.1.0'

# Here, since every process of ours comes by, before it can import ONNX Runtime.
switch_telemetry_off()
