"""Errors of quantisation."""

from pruned_perception.errors import UserError


class QuantizationError(UserError):
    """A bundle that cannot be quantised, or frames that do not calibrate it."""
