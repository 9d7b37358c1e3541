"""What can be wrong with compressed numbers, or with asking for them."""

from shared.errors import FleetlearnError


class UnknownCompressionError(FleetlearnError):
    """Words that name no compression."""

    code = "unknown_compression"


class MalformedPayloadError(FleetlearnError):
    """Bytes that are not what their compression writes for this model."""

    code = "malformed_payload"


class UnencodableError(FleetlearnError):
    """Numbers that no payload can carry: NaN, infinity, or not as many as the layout has."""

    code = "unencodable"
