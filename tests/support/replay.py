"""A campaign that ran in real processes, run again undisturbed in this one: the same model, the same replies."""

import shutil
from pathlib import Path
from typing import Any

from sqlmodel import col, select

from cloud.blobs.store import BlobStore
from cloud.campaigns.models import CampaignRow, RoundRow
from cloud.campaigns.rounds import Answer, RoundState
from cloud.db import open_engine, session_factory
from cloud.registry.service import NewVersion, get_version, register
from cloud.work.models import WorkItem
from shared.ids import DeviceId
from shared.messages.base import ObjectRef
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import Work
from tests.cloud.campaigns.world import World, answer

Replies = dict[tuple[int, str], WorkResult]
"""By round and device: those whose updates are in a model."""


class Replay:
    """What a coordinator's folder holds of one finished campaign.

    Args:
        cloud_dir: Of the coordinator; it is only read.
        campaign_id: Which campaign.
    """

    def __init__(self, cloud_dir: Path, campaign_id: str) -> None:
        self._blobs = BlobStore(str(cloud_dir / "blobs"))
        engine = open_engine(f"sqlite:///{cloud_dir / 'coordinator.sqlite'}")
        with session_factory(engine)() as session, session.begin():
            campaign = session.get_one(CampaignRow, campaign_id)
            self.start = get_version(session, campaign.start_model_version_id)
            self.result = get_version(session, str(campaign.result_model_version_id))
            rounds = select(RoundRow).where(RoundRow.campaign_id == campaign_id, RoundRow.state == RoundState.DONE)
            rows = session.exec(rounds.order_by(col(RoundRow.round))).all()
            self.replies: Replies = {
                (row.round, each["device_id"]): WorkResult.parse_document(
                    session.get_one(WorkItem, row.work_ids[each["device_id"]]).result
                )
                for row in rows
                for each in row.outcomes
                if each["status"] == Answer.DONE
            }
            self._asked: dict[str, Any] = {
                "strategy": campaign.strategy,
                "strategy_settings": campaign.strategy_settings,
            }
            self.rounds = len(rows)
        engine.dispose()

    def run(self, folder: Path, *, replies: Replies | None = None) -> str:
        """The digest of the weights that these replies make, the campaign's own unless given."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        world, told = World(folder, task=self.start.task), self.replies if replies is None else replies
        with world.sessions() as session, session.begin():
            weights = self._carried(world, self.start.weights)
            version = NewVersion("replay", self.start.task, self.start.task_version, weights)
            register(session, version, model_version_id="replayed", now=1.0)

        def behave(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
            if (reply := told.get((work.round, device_id))) is None:
                return answer(work, WorkStatus.FAILED)
            assert reply.update is not None
            self._carried(world, reply.update)
            return reply.model_copy(update={"work_id": work.work_id})

        for device_id in sorted({device for _, device in told}):
            world.add(device_id, behave)
        world.ask(model_version_id="replayed", rounds=self.rounds, quorum=1, **self._asked)
        result = world.run()
        with world.sessions() as session, session.begin():
            digest = get_version(session, str(result["model_version_id"])).weights.digest
        world.engine.dispose()
        return digest

    def _carried(self, world: World, ref: ObjectRef) -> ObjectRef:
        return world.blobs.put(self._blobs.get(ref.digest))
