"""Compressed images from strangers: read in full, refused or decoded; the one way to pixels."""

from pruned_perception.images.decoding import decode_image, read_image
from pruned_perception.images.errors import ImageError

__all__ = ['ImageError', 'decode_image', 'read_image']
