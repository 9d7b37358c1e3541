"""What can be wrong with a request to the inference endpoint; `app.py` chooses the HTTP status of each."""

from shared.errors import FleetlearnError


class ServingError(FleetlearnError):
    """The endpoint did not do what was asked; the base of its family."""

    code = "serving_error"


class InvalidInferenceRequestError(ServingError):
    """A request that does not say what the protocol or the model's schema wants."""

    code = "invalid_inference_request"


class BodyTooLargeError(ServingError):
    """A body over the bound; it is not read to its end."""

    code = "body_too_large"


class HeadTooLargeError(ServingError):
    """A request line and headers over the bound, or a body in pieces so small that they outweigh it."""

    code = "head_too_large"


class InvalidHttpError(ServingError):
    """Bytes that are not HTTP/1.1, or too many requests sent ahead."""

    code = "invalid_http"


class RequestTimeoutError(ServingError):
    """A request that was not whole in time."""

    code = "request_timeout"


class BusyError(ServingError):
    """More connections or larger bodies at once than this device takes."""

    code = "busy"


class UnknownModelError(ServingError):
    """A path that names another model than the one served here, or nothing of the protocol."""

    code = "unknown_model"


class MethodNotAllowedError(ServingError):
    """A path of the protocol, with the wrong method."""

    code = "method_not_allowed"


class NotReadyError(ServingError):
    """No release is active yet."""

    code = "not_ready"


class InferenceFailedError(ServingError):
    """The runtime failed on a valid input."""

    code = "inference_failed"
