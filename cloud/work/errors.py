"""What can be wrong with work."""

from cloud.errors import ConflictError, NotFoundError


class UnknownWorkError(NotFoundError):
    """This device has no such work."""

    code = "unknown_work"


class WorkExistsError(ConflictError):
    """Other work has this id already."""

    code = "work_exists"
