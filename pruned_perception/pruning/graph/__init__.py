"""What a network is to pruning: coupled channels, what reads them, what they cost, how to cut."""
