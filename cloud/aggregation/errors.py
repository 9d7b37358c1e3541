"""What a rule refuses."""

from shared.errors import FleetlearnError


class NothingToAggregateError(FleetlearnError):
    """A round without updates, or whose weights sum to nothing."""

    code = "nothing_to_aggregate"


class TooFewUpdatesError(FleetlearnError):
    """Fewer updates than a robust rule needs to keep its promise."""

    code = "too_few_updates"


class MissingLossError(FleetlearnError):
    """An update without the loss that its rule weighs it by."""

    code = "missing_loss"


class MalformedRowError(FleetlearnError):
    """A stored update that does not fit the model."""

    code = "malformed_row"


class PrivacyExcludesError(FleetlearnError):
    """A strategy that user-level privacy does not go with."""

    code = "privacy_excludes"
