"""What can go wrong around the agent itself; hub, releases, serving and training have families of their own."""

from shared.errors import FleetlearnError


class AgentError(FleetlearnError):
    """The base of this family."""

    code = "agent_error"


class NotEnrolledError(AgentError):
    """The state directory holds no identity."""

    code = "not_enrolled"


class AlreadyEnrolledError(AgentError):
    """The state directory holds an identity already; it is never overwritten."""

    code = "already_enrolled"


class AlreadyRunningError(AgentError):
    """Another process uses this state directory."""

    code = "already_running"


class DamagedStateError(AgentError):
    """A file of the state directory is not what the agent wrote."""

    code = "damaged_state"


class AddressRefusedError(AgentError):
    """An address for the endpoint that strangers could reach."""

    code = "address_refused"


class AddressNotAvailableError(AgentError):
    """An address for the endpoint that is taken or not this machine's."""

    code = "address_not_available"


class InvalidSettingError(AgentError):
    """An option or environment variable with a value that cannot be one."""

    code = "invalid_setting"


class CoordinatorError(AgentError):
    """The coordinator did not do what was asked; the base of what `coordinator_client` raises."""

    code = "coordinator_error"


class CoordinatorUnavailableError(CoordinatorError):
    """No answer, or an answer that says: later. Try again after a back-off."""

    code = "coordinator_unavailable"


class CoordinatorIdentityError(CoordinatorError):
    """Whoever answered is not the coordinator of this fleet."""

    code = "coordinator_identity"


class CoordinatorRefusedError(CoordinatorError):
    """The coordinator understood and refused. Trying again does not help.

    Args:
        message: One sentence.
        hint: What the operator can do.
        status: The HTTP status.
        problem: The stable code of the coordinator's answer.
    """

    code = "coordinator_refused"

    def __init__(self, message: str, *, hint: str = "", status: int = 0, problem: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.problem = problem


class DeviceRevokedError(CoordinatorRefusedError):
    """The coordinator no longer accepts this device."""

    code = "device_revoked"


class DamagedObjectError(CoordinatorError):
    """Bytes that are not what their digest says."""

    code = "damaged_object"
