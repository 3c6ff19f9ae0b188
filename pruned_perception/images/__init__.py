"""Compressed images from strangers: read in full, refused or decoded; the one way to pixels."""

from pruned_perception.images.decoding import decode_image, read_image
from pruned_perception.images.errors import ImageError
from pruned_perception.images.header import Header, read_header

__all__ = ['Header', 'ImageError', 'decode_image', 'read_header', 'read_image']
