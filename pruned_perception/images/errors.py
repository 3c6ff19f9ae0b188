"""What is wrong with an image."""

from pruned_perception.errors import UserError


class ImageError(UserError):
    """An image or image message that cannot be used."""
