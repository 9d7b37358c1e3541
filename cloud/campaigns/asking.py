"""One try at a round, between Flower's strategy and our work: what it configures is stored, what it needs is read."""

from collections.abc import Collection, Sequence

from flwr.app import ConfigRecord, Message
from flwr.serverapp.strategy import FedAvg

from cloud.campaigns.errors import UnsupportedRecordError
from cloud.campaigns.flower.hub_grid import HubGrid, Post, node_id_of
from cloud.campaigns.flower.records import Instruction, NodeReply, array_record, shared_weights
from cloud.campaigns.flower.runtime import run_id_of
from cloud.campaigns.journal import Journal
from cloud.campaigns.models import CampaignRow, RoundRow
from cloud.campaigns.replies import Replies
from cloud.campaigns.rounds import Round
from cloud.campaigns.selection import Selection
from cloud.campaigns.tries import work_id_of
from cloud.campaigns.updates import Update, common_metrics
from cloud.jobs.context import JobContext
from shared.ids import DeviceId
from shared.messages.work import Work
from shared.privacy import PrivacySpec
from shared.tasks.task import Task
from shared.tensors import Tensors, encode


class Asking:
    """A strategy and a model, about to make a round.

    Args:
        context: The job's.
        journal: The campaign's.
        campaign: What is asked for.
        task: What devices train.
        strategy: Reminded of what it knew after the round before.
        model: What the round starts from, all of it.
        trained: Names of the tensors that rounds train: the strategy sees only those.
    """

    def __init__(
        self,
        context: JobContext,
        journal: Journal,
        campaign: CampaignRow,
        task: Task,
        *,
        strategy: FedAvg,
        model: Tensors,
        trained: Collection[str],
    ) -> None:
        self._context = context
        self._journal = journal
        self._campaign = campaign
        self._task = task
        self.strategy = strategy
        self.model = model
        self.trained: Tensors = {name: value for name, value in model.items() if name in trained}

    def ask(self, asked: Round, *, selection: Selection) -> RoundRow:
        """The stored try, with one piece of work for each device that the strategy chose."""
        stored: list[RoundRow] = []

        def post(instructions: Sequence[tuple[DeviceId, Instruction]]) -> list[str]:
            works = self._works(asked, instructions)
            stored.append(self._journal.ask(asked, works, selection=selection))
            return [works[device_id].work_id for device_id, _ in instructions]

        grid = self._grid(asked, post=post)
        grid.push_messages(self._configure(asked, grid))
        return stored[0]

    def configure_again(self, asked: Round) -> None:
        """Tells a strategy after a restart what it was told before; what it answers is in the journal already."""
        self._configure(asked, self._grid(asked, post=lambda instructions: []))

    def replies(self, row: RoundRow, closed: Round) -> list[Message]:
        """The accepted updates as messages, in the order of device ids."""
        work, reader = self._journal.work_of(row), Replies(self._context.blobs, self.model, trained=self.trained)
        results = {one.device_id: one.result for one in work.values() if one.result is not None}
        updates = {row.work_ids[device]: (device, reader.read(results[device])) for device in closed.accepted}
        grid = self._grid(closed, post=lambda _: [], updates=updates)
        return list(grid.pull_messages(updates))

    def _configure(self, asked: Round, grid: HubGrid) -> list[Message]:
        local = self._task.local_training.chosen(private=self._campaign.privacy is not None)
        config = ConfigRecord({"steps": local.steps, "learning-rate": local.learning_rate, "seed": self._campaign.seed})
        return list(self.strategy.configure_train(asked.number, array_record(self.trained), config, grid))

    def _grid(self, asked: Round, *, post: Post, updates: dict[str, tuple[DeviceId, Update]] | None = None) -> HubGrid:
        found = updates or {}
        common = common_metrics({work_id: update for work_id, (_, update) in found.items()})

        def collect(work_ids: Sequence[str]) -> list[NodeReply]:
            return [_node_reply(work_id, *found[work_id], common=common) for work_id in work_ids if work_id in found]

        return HubGrid(
            run_id=run_id_of(self._campaign.campaign_id),
            devices=asked.answers,
            post=post,
            collect=collect,
            now=self._context.now,
        )

    def _works(self, asked: Round, instructions: Sequence[tuple[DeviceId, Instruction]]) -> dict[DeviceId, Work]:
        if not shared_weights([one.tensors for _, one in instructions]):
            raise UnsupportedRecordError("Expected one model for all devices of a round, got several")
        sent = {**self.model, **instructions[0][1].tensors}
        model = self._context.blobs.put(encode(sent))
        spec = PrivacySpec.model_validate(self._campaign.privacy) if self._campaign.privacy else None
        return {
            device_id: Work(
                work_id=self._work_id(asked, device_id),
                kind=one.kind,
                campaign_id=self._campaign.campaign_id,
                round=asked.number,
                task=self._task.name,
                task_version=self._task.version,
                model=model,
                config=dict(one.config),
                privacy=spec,
                deadline_s=self._campaign.round_timeout_s,
            )
            for device_id, one in instructions
        }

    def _work_id(self, asked: Round, device_id: DeviceId) -> str:
        return work_id_of(self._campaign.campaign_id, number=asked.number, attempt=asked.attempt, device_id=device_id)


def _node_reply(work_id: str, device: DeviceId, update: Update, *, common: frozenset[str]) -> NodeReply:
    metrics = {name: value for name, value in update.metrics.items() if name in common}
    return NodeReply(node_id=node_id_of(device), work_id=work_id, tensors=update.tensors, metrics=metrics)
