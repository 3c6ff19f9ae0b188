"""Latency and accuracy: live, from a bag, in simulation."""
