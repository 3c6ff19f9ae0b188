"""Object detection for ROS 2 robots with neural networks pruned with guarantees."""

__version__ = '0.1.0'
