"""Errors of the inference that a user can mend."""

from pruned_perception.errors import UserError


class InferenceError(UserError):
    """A model that cannot be run as its manifest says, or that returned nonsense."""


class ImageError(UserError):
    """An image or image message that cannot be used."""
