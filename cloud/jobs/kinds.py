"""Which function does a kind of job; only the worker process of that job imports it."""

from importlib import import_module

from cloud.errors import InvalidRequestError
from cloud.jobs.context import JobFunction

FUNCTION_BY_KIND = {
    "train_base": "cloud.training.job:run",
    "campaign": "cloud.campaigns.job:run",
    "analysis": "cloud.campaigns.analytics.job:run",
    "package": "cloud.packaging.job:run",
}


class UnknownJobKindError(InvalidRequestError):
    """No function does this kind of job."""

    code = "unknown_job_kind"


def job_function(kind: str) -> JobFunction:
    """The function of this kind. Raises UnknownJobKindError."""
    if kind not in FUNCTION_BY_KIND:
        raise UnknownJobKindError(f"Expected a job of kind {', '.join(FUNCTION_BY_KIND)}, got {kind[:80]!r}")
    module, _, name = FUNCTION_BY_KIND[kind].partition(":")
    function: JobFunction = getattr(import_module(module), name)
    return function
