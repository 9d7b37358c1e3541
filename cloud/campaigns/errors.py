"""What can be wrong with a campaign."""

from collections.abc import Sequence
from typing import Self

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


class UnknownNodeError(FleetlearnError):
    """A Flower message to a node that no device has the number of."""

    code = "unknown_node"


class NodeIdCollisionError(FleetlearnError):
    """Two devices whose names have one number in Flower: one in 2**61 pairs; one of them needs another name."""

    code = "node_id_collision"


class DevicesBusyError(FleetlearnError):
    """Another campaign asked one of the devices first; the round looks again."""

    code = "devices_busy"


class FlowerAppError(FleetlearnError):
    """A ServerApp that ended with an error of its own."""

    code = "flower_app_error"


class DepartedError(FleetlearnError):
    """A ServerApp that was run again and did not do what it did before: it cannot be resumed."""

    code = "flower_app_departed"

    @classmethod
    def between(cls, before: Sequence[object], now: Sequence[object], *, difference: str = "") -> Self:
        """The error for messages that should be those of before; the first that is not says which."""
        expected = next((one for one in before if one not in now), None)
        came = next((one for one in now if one not in before), None)
        where = f"; they differ in {difference}" if difference else ""
        return cls(
            f"Expected the ServerApp to send what it sent before it was interrupted, {expected or 'nothing more'}, "
            f"got {came or 'nothing'}{where}",
            hint="Only an app that does the same again can be resumed: keep time and unseeded randomness out of what "
            "it sends, and start the campaign anew.",
        )
