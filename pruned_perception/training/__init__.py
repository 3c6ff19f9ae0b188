"""Detector, data sets, losses, training, accuracy, export. Needs torch."""
