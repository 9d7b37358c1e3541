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
