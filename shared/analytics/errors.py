"""What can be wrong with a question."""

from shared.errors import FleetlearnError


class UnanswerableQueryError(FleetlearnError):
    """A question that this device's task cannot answer, or not with the noise that was asked."""

    code = "unanswerable_query"
