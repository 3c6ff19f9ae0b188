"""Research scripts: what the documentation's figures were printed by. Not installed."""
