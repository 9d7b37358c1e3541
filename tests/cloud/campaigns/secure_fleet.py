"""Devices that take part in secure aggregation, with the agent's own code and files."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.training.compressing import outgoing
from edge_agent.training.secure import SecureRounds
from shared.compression.shared_mask import mask_seed
from shared.errors import FleetlearnError
from shared.ids import DeviceId
from shared.messages.base import ObjectRef
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import SecureStep, Work, WorkKind
from shared.tensors import Tensors, decode
from tests.cloud.campaigns.world import Behaviour, World, answer, update_of
from tests.shared.secagg.cohort import identity, verify

Train = Callable[[World, DeviceId, Work], Tensors]


def _plainly(world: World, device_id: DeviceId, work: Work) -> Tensors:
    return update_of(device_id, work, world.received(work))


@dataclass
class SecureDevices:
    """Several devices; each has a folder that outlives the coordinator."""

    folder: Path
    train: Train = _plainly
    sent: list[bytes] = field(default_factory=list)
    """Everything that any device uploaded."""

    def behaviour(self, *, gone_at: SecureStep | None = None) -> Behaviour:
        """A device that does its part, up to the step before which it goes away."""

        def behave(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
            assert work.secure is not None
            if work.secure.step is gone_at:
                return None
            try:
                payload = self._answer(world, device_id, work)
            except FleetlearnError as error:
                return answer(work, WorkStatus.REFUSED, reason=error.message)
            metrics = {} if work.kind is WorkKind.AGGREGATE else {"num-examples": 10.0}
            return answer(work, WorkStatus.DONE, update=self._put(world, payload), metrics=metrics)

        return behave

    def _answer(self, world: World, device_id: DeviceId, work: Work) -> bytes:
        assert work.secure is not None
        rounds = SecureRounds(
            self.folder / device_id, device=device_id, certificate=b"", sign=identity(device_id).sign, verify=verify
        )
        if work.kind is not WorkKind.AGGREGATE:
            model = world.received(work)
            mask = mask_seed(work.secure.terms.round_id)
            update = self.train(world, device_id, work)
            sent = outgoing(update, model, work.compression, kept=None, seed=work.round, mask=mask)
            return rounds.advertise(work.secure, model=model, update=decode(sent.update), user=work.user_privacy)
        return rounds.answer(work.secure, world.blobs.get(work.model.digest))

    def _put(self, world: World, payload: bytes) -> ObjectRef:
        self.sent.append(payload)
        return world.blobs.put(payload)
