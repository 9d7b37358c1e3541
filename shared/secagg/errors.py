"""What secure aggregation refuses."""

from shared.errors import FleetlearnError


class SecureAggregationError(FleetlearnError):
    """A round of secure aggregation that cannot go on; the base of this family."""

    code = "secure_aggregation"


class RoundRefusedError(SecureAggregationError):
    """The device does not go on: what the server asks would let it learn more than a sum."""

    code = "secure_round_refused"


class RoundLostError(SecureAggregationError):
    """Too many devices went away: the sum cannot be unmasked. Nothing about any update was learned."""

    code = "secure_round_lost"


class UnencodableUpdateError(SecureAggregationError):
    """An update with a number that the fixed-point format cannot hold; it is never clipped or wrapped silently."""

    code = "unencodable_update"
