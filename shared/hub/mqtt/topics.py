"""The topics of one fleet on a broker that it may share with others. Pure.

    fleetlearn/{fleet}/devices/{device}/up/...      the device writes, the coordinator reads
    fleetlearn/{fleet}/devices/{device}/down/...    the coordinator writes, the device reads

So two rules of an ordinary access list isolate every device (`cloud.hubs.mqtt.acl` writes them), whatever it sends.

    up/hello/{rid}              {"session"}   the connection begins
    up/bye/{session}                          it ended; also the last will
    up/events/{rid}             any bytes     an event
    up/get/{rid}                              both documents, please
    up/report/{rid}             JSON patch    the reported document changes
    up/replies/{caller}/{rid}   {"status", "payload"}

    down/answers/{rid}/{status} JSON          to hello, events, get and report: 200 means that it is on disk
    down/desired/{version}      JSON patch    the desired document changed
    down/commands/{caller}/{rid} {"name", "payload"}
    down/end/{reason}                         connect again (`again`), or stay away (`removed`)

`{rid}` is the asker's own and comes back with the answer. `{caller}` is one process of the coordinator. Requests and
`desired` are QoS 1. Answers, commands and replies are of use to a connected asker alone, who asks again: QoS 0. Nothing
is retained. The form is the same under MQTT 3.1.1 and 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.ids import DeviceId, InvalidIdError, parse_device_id

COORDINATOR = "fleetlearn.coordinator"
"""The coordinator's common name. No device can have it: a device's has no dot."""
AGAIN, REMOVED = "again", "removed"


@dataclass(frozen=True)
class Upward:
    """What came from a device: `path` is what stands after `up/`."""

    device_id: DeviceId
    path: tuple[str, ...]


@dataclass(frozen=True)
class Topics:
    """The topics of one fleet."""

    fleet: str

    @property
    def root(self) -> str:
        return f"fleetlearn/{self.fleet}"

    def up(self, device_id: str, *path: str) -> str:
        return "/".join((self.root, "devices", device_id, "up", *path))

    def down(self, device_id: str, *path: str) -> str:
        return "/".join((self.root, "devices", device_id, "down", *path))

    def all_down(self, device_id: str) -> str:
        """The one filter of a device."""
        return self.down(device_id, "#")

    def requests(self, group: str) -> Sequence[str]:
        """Filters of what a coordinator answers: everything, or its share with the others of its group."""
        filters = [self.up("+", kind, "+") for kind in ("hello", "bye", "events", "get", "report")]
        return [f"$share/{group}/{each}" for each in filters] if group else filters

    def replies(self, caller: str) -> str:
        """The filter of what comes back to this process alone."""
        return self.up("+", "replies", caller, "+")

    def parse_up(self, topic: str) -> Upward | None:
        """What a device sent; None for a topic that is not of this form."""
        head = f"{self.root}/devices/"
        parts = topic.removeprefix(head).split("/")
        if not topic.startswith(head) or len(parts) < 3 or parts[1] != "up":
            return None
        try:
            return Upward(parse_device_id(parts[0]), tuple(parts[2:]))
        except InvalidIdError:
            return None

    def parse_down(self, device_id: DeviceId, topic: str) -> tuple[str, ...]:
        """The path after `down/`; empty for a topic that is not of this form."""
        head = self.down(device_id, "")
        return tuple(topic.removeprefix(head).split("/")) if topic.startswith(head) else ()
