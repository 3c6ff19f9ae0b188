"""From images to detections: engine, preprocessing, decoding, latency. No torch, no ROS."""
