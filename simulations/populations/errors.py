"""What keeps a population from taking part."""

from shared.errors import FleetlearnError


class CohortTooLargeError(FleetlearnError):
    """A round asks for more clients than there are."""

    code = "cohort_too_large"
