"""What the app's workers tell its screens. A newer look replaces one that still waits to be shown."""

from dataclasses import dataclass

from textual.message import Message

from fleet.fleet_state import DeviceState, FleetState


@dataclass
class FleetSeen(Message):
    """One look at the fleet."""

    state: FleetState

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, FleetSeen)


@dataclass
class DeviceSeen(Message):
    """One look at one device."""

    state: DeviceState

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, DeviceSeen)
