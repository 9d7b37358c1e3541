"""What can go wrong between an operator's machine and the coordinator, as one family of errors."""

from shared.errors import FleetlearnError


class CoordinatorUnreachableError(FleetlearnError):
    """No answer: nobody listens there, the name is unknown, TLS failed, or it took too long."""

    code = "coordinator_unreachable"


class ApiError(FleetlearnError):
    """The coordinator answered, and refused.

    Args:
        message: The coordinator's own sentence.
        hint: The coordinator's own hint.
        api_code: The coordinator's stable code, for programs.
        status: The HTTP status.
    """

    code = "api_error"

    def __init__(self, message: str, *, hint: str = "", api_code: str, status: int) -> None:
        super().__init__(message, hint=hint)
        self.api_code = api_code
        self.status = status


class UnexpectedAnswerError(FleetlearnError):
    """An answer that is not what the API promises: another program listens there, or a much older coordinator."""

    code = "unexpected_answer"


class ProfileError(FleetlearnError):
    """No usable URL, token or CA for the coordinator."""

    code = "no_connection_profile"


class WaitTimedOutError(FleetlearnError):
    """Work in the cloud that did not end in the time the caller would wait; it goes on without us."""

    code = "wait_timed_out"


class JobFailedError(FleetlearnError):
    """Work in the cloud that ended without its result."""

    code = "job_failed"
