"""The model bundle: manifest schema, integrity checks and families. No torch, no ROS."""
