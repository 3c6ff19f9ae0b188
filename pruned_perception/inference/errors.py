"""Errors of the inference that a user can mend."""

from pruned_perception.errors import UserError
from pruned_perception.images.errors import ImageError

__all__ = ['BrokenOffError', 'ImageError', 'InferenceError']


class InferenceError(UserError):
    """A model that cannot be run as its manifest says, or that returned nonsense."""


class BrokenOffError(InferenceError):
    """A run of the network did not end in time, and was broken off."""
