"""What a device will not do."""

from shared.errors import FleetlearnError


class RefusedWorkError(FleetlearnError):
    """Work this device will not do, as it was asked."""

    code = "refused_work"
