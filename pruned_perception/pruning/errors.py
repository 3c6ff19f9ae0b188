"""Errors of the pruning stage that a user can mend."""

from pruned_perception.errors import UserError


class PruningError(UserError):
    """A network, plan or criterion that cannot be used as asked."""


class BudgetError(PruningError):
    """A budget that cannot be met; the text says the nearest that can."""


class CannotDifferentiateError(PruningError):
    """No gradient reaches the layers from any output of the network."""
