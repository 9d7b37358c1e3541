"""What an engine refuses."""

from shared.errors import FleetlearnError


class UnsupportedModelError(FleetlearnError):
    """A model that this engine has no fast way to compute."""

    code = "unsupported_model"
