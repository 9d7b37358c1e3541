"""What keeps data from being dealt."""

from shared.errors import FleetlearnError


class ImpossiblePartitionError(FleetlearnError):
    """The data cannot be dealt as asked; the hint says what would work."""

    code = "impossible_partition"
