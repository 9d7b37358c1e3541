"""A broker, a coordinator's end and devices' ends, for stories about what goes wrong between them."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cloud.hubs.mqtt.fleet import MqttFleet
from cloud.hubs.mqtt.store import MqttStore
from edge_agent.hubs.mqtt import MqttDevice
from shared.hub.port import Event
from shared.ids import DeviceId
from tests.cloud.localhub.support import Authority
from tests.support.mosquitto import Mosquitto, credential


@dataclass
class World:
    broker: Mosquitto
    authority: Authority
    store: MqttStore
    open: list[MqttFleet] = field(default_factory=list)

    def fleet(self, *, replica: str = "one", group: str = "") -> MqttFleet:
        made = MqttFleet(
            address=self.broker.for_coordinators,
            credential=credential(self.authority),
            store=self.store,
            replica=replica,
            group=group,
            rng=random.Random(7),
        )
        self.open.append(made)
        return made

    def device(self, device_id: str, *, connect_timeout_s: float = 30.0) -> MqttDevice:
        issued = self.authority.issue(device_id)
        return MqttDevice(
            address=self.broker.for_devices,
            device_id=DeviceId(device_id),
            certificate_file=issued.certificate_file,
            key_file=issued.key_file,
            ca_pem=self.authority.ca_pem,
            connect_timeout_s=connect_timeout_s,
        )

    async def events(self) -> list[Event]:
        """Everything in the log."""
        found: list[Event] = []
        while page := await asyncio.to_thread(self.store.events, found[-1].offset if found else 0, limit=1000):
            found += page
        return found


@asynccontextmanager
async def world(broker: Mosquitto, authority: Authority, store: MqttStore) -> AsyncIterator[World]:
    made = World(broker, authority, store)
    try:
        yield made
    finally:
        for fleet in made.open:
            await fleet.close()
