"""Scores, allocation, surgery: from a network to a smaller one. Needs torch."""
