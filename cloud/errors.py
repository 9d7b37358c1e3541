"""The families of errors that a caller of the coordinator can cause; `cloud/app.py` gives each its HTTP status."""

from shared.errors import FleetlearnError


class CoordinatorError(FleetlearnError):
    """The coordinator did not do what was asked; the base of its families."""

    code = "coordinator_error"


class NotFoundError(CoordinatorError):
    """There is no such thing (404)."""

    code = "not_found"


class ConflictError(CoordinatorError):
    """The thing is in a state in which this cannot be done (409)."""

    code = "conflict"


class InvalidRequestError(CoordinatorError):
    """What was sent makes no sense (422)."""

    code = "invalid_request"


class ForbiddenError(CoordinatorError):
    """The caller is known, and may not do this (403)."""

    code = "forbidden"


class UnauthenticatedError(CoordinatorError):
    """The caller did not prove who they are (401)."""

    code = "unauthenticated"


class TooLargeError(CoordinatorError):
    """More bytes than the coordinator takes (413)."""

    code = "too_large"


class RangeError(CoordinatorError):
    """A part of an object that it does not have (416)."""

    code = "range_not_satisfiable"

    def __init__(self, message: str, *, size_bytes: int) -> None:
        super().__init__(message)
        self.size_bytes = size_bytes


class UnavailableError(CoordinatorError):
    """Something the coordinator needs is away; the same request may succeed later (503)."""

    code = "unavailable"
