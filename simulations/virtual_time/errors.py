"""What keeps virtual time from going on."""

from shared.errors import FleetlearnError


class NobodyThereError(FleetlearnError):
    """Too few clients were there for a round, for too long."""

    code = "nobody_there"
