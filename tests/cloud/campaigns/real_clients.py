"""Devices that run the agent's real Flower ClientApp on real data, in the test's own process."""

import hashlib

from edge_agent.training.client_app import make_app
from edge_agent.training.flower_call import call_client
from shared.ids import DeviceId
from shared.messages.events import WorkResult
from shared.messages.work import Work
from shared.randomness import SecureRandomness
from shared.tasks.task import DeviceData
from shared.tensors import Tensors
from tests.cloud.campaigns.world import Behaviour, World, done


def real_client(data: DeviceData) -> Behaviour:
    kept: dict[str, Tensors] = {}

    def behave(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        key = hashlib.sha256(work.work_id.encode()).digest()
        app = make_app(lambda task, context: data, lambda: SecureRandomness(key))
        config = {**work.config, "task": work.task, "task-version": work.task_version}
        found = call_client(
            app,
            kind=work.kind,
            model=world.received(work),
            config=config,
            privacy=work.privacy,
            kept=kept.get(str(work.config.get("after-work"))),
        )
        kept[work.work_id] = found.kept
        return done(world, work, found.update, found.metrics)

    return behave
