"""What can be wrong with a campaign."""

from cloud.errors import InvalidRequestError, NotFoundError
from shared.errors import FleetlearnError


class UnknownCampaignError(NotFoundError):
    """There is no such campaign."""

    code = "unknown_campaign"


class InvalidCampaignError(InvalidRequestError):
    """A campaign whose parts contradict each other."""

    code = "invalid_campaign"


class CampaignFailedError(FleetlearnError):
    """The campaign cannot go on; what its rounds achieved is kept."""

    code = "campaign_failed"


class AggregationFailedError(FleetlearnError):
    """A round's updates do not make a model."""

    code = "aggregation_failed"


class UnsupportedRecordError(FleetlearnError):
    """A Flower message with more in it than work for our devices can carry."""

    code = "unsupported_record"


class NodeIdCollisionError(FleetlearnError):
    """Two devices whose names have one number in Flower: one in 2**61 pairs; one of them needs another name."""

    code = "node_id_collision"


class DevicesBusyError(FleetlearnError):
    """Another campaign asked one of the devices first; the round looks again."""

    code = "devices_busy"
