"""What can be wrong with a model version."""

from cloud.errors import ConflictError, NotFoundError


class UnknownModelVersionError(NotFoundError):
    """There is no such model version."""

    code = "unknown_model_version"


class VersionStageError(ConflictError):
    """A change of stage that the stages do not allow."""

    code = "version_stage"
