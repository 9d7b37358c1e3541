"""Why somebody is not let in."""

from cloud.errors import ConflictError, ForbiddenError, UnauthenticatedError


class MissingSignatureError(UnauthenticatedError):
    """A device's route was called without a device's signature."""

    code = "missing_device_signature"


class StaleNonceError(UnauthenticatedError):
    """The nonce is too old or not ours; the answer carries a fresh one."""

    code = "stale_nonce"


class UnknownSignerError(UnauthenticatedError):
    """Signed by a device that is not enrolled."""

    code = "unknown_signer"


class UnknownEnrolmentTokenError(UnauthenticatedError):
    """No enrolment token has this secret."""

    code = "unknown_enrolment_token"


class EnrolmentTokenUsedError(ConflictError):
    """The one-time token enrolled a device already."""

    code = "enrolment_token_used"


class EnrolmentTokenExpiredError(ForbiddenError):
    """The token's time is over."""

    code = "enrolment_token_expired"


class EnrolmentTokenBoundError(ForbiddenError):
    """The token enrols another device only."""

    code = "enrolment_token_for_other_device"
