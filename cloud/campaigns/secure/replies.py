"""Judges the answers to training under secure aggregation: advertisements, and no update."""

from cloud.campaigns.replies import Replies
from cloud.campaigns.secure.exchange import read_message
from cloud.campaigns.updates import RejectedUpdateError, Update
from cloud.work.service import WorkOutcome
from shared.secagg.messages import Advertisement


class AdvertisementReplies(Replies):
    """What a device uploads is its keys for the round; whether they are its own, its peers judge."""

    def check(self, one: WorkOutcome) -> Update | None:
        assert one.result is not None
        found = read_message(self._blobs, Advertisement, one.result)
        if found.device != one.device_id:
            raise RejectedUpdateError(f"Expected keys of {one.device_id}, got {found.device[:80]!r}'s")
        return None
