"""What an engine refuses."""

from shared.errors import FleetlearnError


class UnsupportedModelError(FleetlearnError):
    """A model that this engine has no fast way to compute."""

    code = "unsupported_model"


class EngineStoppedError(FleetlearnError):
    """An engine that computes elsewhere (Ray, another process) and stopped answering, or answered with an error."""

    code = "engine_stopped"
