"""What can be wrong with a release, seen from the cloud."""

from cloud.errors import ConflictError, CoordinatorError, InvalidRequestError, NotFoundError


class UnknownReleaseError(NotFoundError):
    """No release has this id."""

    code = "unknown_release"


class UnknownReleaseFileError(NotFoundError):
    """The release repository has no metadata or target of this name."""

    code = "unknown_release_file"


class AlreadyPublishedError(ConflictError):
    """The release is signed and out; releases never change."""

    code = "already_published"


class StaleSigningRequestError(ConflictError):
    """Another release was published between the signing request and the signature."""

    code = "stale_signing_request"


class UntrustedTargetsError(InvalidRequestError):
    """Signed targets metadata that is not signed by the right keys, or says more or less than it was asked to."""

    code = "untrusted_targets"


class RepositoryStateError(CoordinatorError):
    """The release repository on disk is missing, or is not what this coordinator wrote."""

    code = "release_repository"
