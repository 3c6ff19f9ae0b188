"""Thin ROS 2 nodes. No torch."""
