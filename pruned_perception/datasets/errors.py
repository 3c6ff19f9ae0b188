"""What is raised where data cannot be trusted."""

from pruned_perception.errors import UserError


class DataError(UserError):
    """A data set is missing, incomplete or contradicts itself; the text names file and place."""
