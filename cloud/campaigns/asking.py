"""One try at a round, between a model and our work: what devices are asked is stored, what they answered is read."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.aggregation.central_privacy.noise import KeyedNoise
from cloud.campaigns.aggregating import Aggregated, Aggregator
from cloud.campaigns.appending import TreeAggregator
from cloud.campaigns.journal import Journal
from cloud.campaigns.models import CampaignRow, RoundRow
from cloud.campaigns.replies import Replies
from cloud.campaigns.rounds import Round
from cloud.campaigns.secure.exchange import SecureExchange, read_message
from cloud.campaigns.secure.replies import AdvertisementReplies
from cloud.campaigns.selection import Selection
from cloud.campaigns.tries import work_id_of
from cloud.campaigns.updates import WEIGHT_KEY, Expected, Update
from cloud.campaigns.user_privacy import noise_key
from cloud.jobs.context import JobContext
from shared.api.campaigns import SecureAggregation
from shared.beside import put_beside
from shared.compression.negotiation import agreed
from shared.compression.settings import Compression
from shared.compression.shared_mask import SharedMask, mask_seed
from shared.ids import DeviceId
from shared.layout import Layout
from shared.messages.base import ObjectRef
from shared.messages.work import AFTER_WORK, STRATEGY, SecureStep, SecureWork, UserWork, Work, WorkKind
from shared.privacy import PrivacySpec, UserPrivacySpec
from shared.secagg.messages import Advertisement, Terms
from shared.strategies import StrategySettings
from shared.tasks.task import Task
from shared.tensors import Tensors, decode, encode
from shared.user_privacy import count_scale, summed_noise


@dataclass(frozen=True)
class Waiting:
    """How a job waits for devices while it aggregates."""

    ring: Callable[[Iterable[DeviceId]], None]
    wait: Callable[[str], None]
    """Waits a moment, having said what for; raises when an operator stopped the job."""


class Asking:
    """A model, about to make a round.

    Args:
        context: The job's.
        journal: The campaign's.
        campaign: What is asked for.
        task: What devices train.
        settings: The campaign's strategy.
        aggregator: The same strategy's arithmetic.
        model: What the round starts from, all of it.
        memory: What the strategy knew after the round before.
        expected: What every update must have.
    """

    def __init__(
        self,
        context: JobContext,
        journal: Journal,
        campaign: CampaignRow,
        task: Task,
        *,
        settings: StrategySettings,
        aggregator: Aggregator | TreeAggregator,
        model: Tensors,
        memory: Tensors,
        expected: Expected,
    ) -> None:
        self._context = context
        self._journal = journal
        self._campaign = campaign
        self._task = task
        self._settings = settings
        self._aggregator = aggregator
        self._expected = expected
        self.model = model
        self._memory = memory

    def ask(self, asked: Round, *, carried: Mapping[DeviceId, str], selection: Selection) -> RoundRow:
        """The stored try, with one piece of work for each device that has none from before. Raises DevicesBusyError."""
        works = self._works(asked, [device for device in asked.answers if device not in carried])
        return self._journal.ask(asked, works, carried=carried, selection=selection)

    def replies(self, number: int) -> Replies:
        """Judges and reads what devices send back in this round."""
        if self._campaign.secure:
            return AdvertisementReplies(self._context.blobs, self.model, expected=self._expected)
        return Replies(self._context.blobs, self.model, expected=self._expected, number=number, older=self._model_of)

    def aggregate(self, row: RoundRow, closed: Round, *, waiting: Waiting) -> Aggregated:
        """The next model from the accepted updates. Raises AggregationFailedError."""
        if self._campaign.secure:
            return self._aggregate_secure(row, closed, waiting)
        aggregator = self._aggregator
        if self._campaign.user_privacy:
            aggregator = self._summing.with_noise(KeyedNoise(self._noise_key(row, closed)))
        return aggregator.aggregate(self.model, self._memory, self._updates(row, closed))

    def _noise_key(self, row: RoundRow, closed: Round) -> bytes:
        works = {one.device_id: one.result for one in self._journal.work_of(row).values()}
        sent = [(device, works[device]) for device in closed.accepted]
        digests = [(device, result.update.digest) for device, result in sent if result and result.update]
        return noise_key(self._journal.secret(), number=closed.number, attempt=closed.attempt, updates=digests)

    def _aggregate_secure(self, row: RoundRow, closed: Round, waiting: Waiting) -> Aggregated:
        """From the sum, since that is all there is to see."""
        total, clients = self._secure_sum(row, closed, waiting)
        layout, mask = self._layout, self._mask(closed)
        if (user := self._user) is not None:
            # Noise, and what was within the bound, are in the sum already.
            scale, size = count_scale(user.spec, user.clip_norm), mask.k
            within = float(total[size]) / scale if scale else 0.0
            summed = layout.split(mask.expanded(torch.from_numpy(total[:size])).numpy())
            return self._summing.aggregate_sum(self.model, self._memory, summed, within=within, clients=clients)
        moved = layout.flatten(self.model) + mask.expanded(torch.from_numpy(total / clients)).numpy()
        tensors = {name: value.astype(self.model[name].dtype) for name, value in layout.split(moved).items()}
        return self._summing.aggregate(self.model, self._memory, [("all", Update(tensors, {WEIGHT_KEY: 1.0}))])

    def _secure_sum(self, row: RoundRow, closed: Round, waiting: Waiting) -> tuple[NDArray[np.float64], int]:
        """Of what survivors sent, `(parameters,)`, and how many they are. Raises AggregationFailedError."""
        work = self._journal.work_of(row)
        results = {one.device_id: one.result for one in work.values() if one.result is not None}
        exchange = SecureExchange(
            self._journal,
            self._context.blobs,
            row,
            trained=self._works(closed, closed.answers),
            ring=waiting.ring,
            wait=waiting.wait,
            now=self._context.now,
        )
        blobs = self._context.blobs
        return exchange.total(
            {device: read_message(blobs, Advertisement, results[device]) for device in closed.accepted}
        )

    @property
    def _summing(self) -> Aggregator:
        """What secure aggregation and user-level privacy go with: trees are refused before a campaign starts."""
        assert isinstance(self._aggregator, Aggregator)
        return self._aggregator

    @property
    def _layout(self) -> Layout:
        """Of what devices sum, in the order in which they do: by name."""
        return Layout.of({name: self.model[name] for name in sorted(self._expected.trained)})

    def _mask(self, asked: Round) -> SharedMask:
        """Which positions of all devices' updates are summed: all, or those of `random-k`."""
        compression = Compression.parse(self._campaign.compression) if self._campaign.compression else Compression()
        return SharedMask.of(compression, parameters=self._layout.size, seed=mask_seed(self._round_id(asked)))

    def _round_id(self, asked: Round) -> str:
        return f"{self._campaign.campaign_id}/{asked.number}/{asked.attempt}"

    def _secure(self, asked: Round, device_id: DeviceId) -> SecureWork | None:
        if not self._campaign.secure:
            return None
        wanted, user = SecureAggregation.model_validate(self._campaign.secure), self._user
        # Where the bound adapts, one number more: how many were within it.
        count = int(user is not None and user.spec.adaptive is not None)
        return SecureWork(
            step=SecureStep.ADVERTISE,
            terms=Terms(
                round_id=self._round_id(asked),
                parameters=self._mask(asked).k + count,
                clients_min=wanted.clients_min,
                corrupt_share=wanted.corrupt_share,
                dropout_share=wanted.dropout_share,
                noise=None if user is None else summed_noise(user.spec, user.clip_norm),
            ),
            training=self._work_id(asked, device_id),
            clients_max=max(3, len(asked.answers)),
            value_max=wanted.value_max,
        )

    def _updates(self, row: RoundRow, closed: Round) -> Iterator[tuple[DeviceId, Update]]:
        """The accepted updates in the order of device ids, each read when it is asked for."""
        work, reader = self._journal.work_of(row), self.replies(row.round)
        answered = {one.device_id: one for one in work.values()}
        for device in closed.accepted:
            yield device, reader.update_of(answered[device])

    def _model_of(self, number: int) -> Tensors:
        """What an earlier round sent."""
        model = ObjectRef.model_validate(self._journal.checkpoint(number - 1).model)
        return decode(self._context.blobs.get(model.digest))

    def _works(self, asked: Round, devices: Iterable[DeviceId]) -> dict[DeviceId, Work]:
        sent = put_beside(self.model, self._aggregator.sent(self.model, self._memory))
        model = self._context.blobs.put(encode(sent))
        spec = PrivacySpec.model_validate(self._campaign.privacy) if self._campaign.privacy else None
        config, counted, user = self._config(asked), self._counted(), self._user
        devices = list(devices)
        codecs = self._journal.codecs_of(devices) if self._campaign.compression else {}
        return {
            device_id: Work(
                work_id=self._work_id(asked, device_id),
                kind=WorkKind.TRAIN,
                campaign_id=self._campaign.campaign_id,
                round=asked.number,
                task=self._task.name,
                task_version=self._task.version,
                model=model,
                config=config | counted.get(device_id, {}),
                privacy=spec,
                user_privacy=user,
                compression=agreed(self._campaign.compression, codecs.get(device_id, ())),
                secure=self._secure(asked, device_id),
                deadline_s=self._campaign.round_timeout_s,
            )
            for device_id in devices
        }

    @cached_property
    def _user(self) -> UserWork | None:
        """How devices are hidden in this round."""
        if not self._campaign.user_privacy:
            return None
        spec = UserPrivacySpec.model_validate(self._campaign.user_privacy)
        return UserWork(spec=spec, clip_norm=self._summing.clip_norm(self.model, self._memory))

    def _config(self, asked: Round) -> dict[str, bool | int | float | str]:
        local = self._task.local_training.chosen(private=self._campaign.privacy is not None)
        config: dict[str, bool | int | float | str] = {
            "steps": local.steps,
            "learning-rate": local.learning_rate,
            "seed": self._campaign.seed,
            "server-round": asked.number,
        }
        return config if self._settings.is_plain_on_clients else config | {STRATEGY: self._settings.model_dump_json()}

    def _counted(self) -> dict[DeviceId, dict[str, bool | int | float | str]]:
        """For each device the work whose update is in the model: what it kept of other work is void."""
        has_feedback = bool(self._campaign.compression) and Compression.parse(self._campaign.compression).has_feedback
        if not (self._settings.is_remembered_by_clients or has_feedback):
            return {}
        return {device: {AFTER_WORK: work_id} for device, work_id in self._journal.past().counted.items()}

    def _work_id(self, asked: Round, device_id: DeviceId) -> str:
        return work_id_of(self._campaign.campaign_id, number=asked.number, attempt=asked.attempt, device_id=device_id)
