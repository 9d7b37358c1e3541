"""What can be wrong with a job."""

from cloud.errors import ConflictError, NotFoundError


class UnknownJobError(NotFoundError):
    """No job has this id."""

    code = "unknown_job"


class JobFinishedError(ConflictError):
    """The job is over; nothing about it changes any more."""

    code = "job_finished"


class JobNotPausedError(ConflictError):
    """Only what is paused can be resumed."""

    code = "job_not_paused"
