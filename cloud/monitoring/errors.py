"""What can be wrong with a question about alerts."""

from cloud.errors import NotFoundError


class UnknownAlertError(NotFoundError):
    """No alert has this id."""

    code = "unknown_alert"
