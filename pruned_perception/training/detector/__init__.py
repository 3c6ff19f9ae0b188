"""Our own detector: network, data sets, losses, training, accuracy, export."""
