"""Decoders: one file per kind of network output, and their registry."""
