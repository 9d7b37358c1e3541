"""The event log over HTTPS: by partition, by consumer group, with a checkpoint that the hub keeps."""

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import pytest

from cloud.localhub import codec
from cloud.localhub.partitions import partition_of
from tests.cloud.localhub.service import Service
from tests.cloud.localhub.support import HubProcess, RawDevice, hub_process

_ADDRESS = "127.0.0.81"
_PARTITION = partition_of("press-07", 4)
_PATH = f"/events/groups/drift/partitions/{_PARTITION}"

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub"), _ADDRESS) as running:
        service = Service(running)
        assert service.call("PUT", "/devices/press-07", {"authentication": {"type": "certificateAuthority"}})[0] == 200
        asyncio.run(_send(running, [b"one", b"two", b"three"]))
        yield running


async def _send(hub: HubProcess, bodies: list[bytes]) -> None:
    device = await RawDevice.dial(hub.authority, _ADDRESS, 8883, hub.authority.issue("press-07"))
    assert await device.connect("press-07") == 0
    for number, body in enumerate(bodies, start=1):
        await device.send(codec.Publish("devices/press-07/messages/events/a=b", body, 1, number))
    assert [await device.receive() for _ in bodies] == [codec.PubAck(n) for n in range(1, len(bodies) + 1)]
    await device.close()


def _bodies(page: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(event["body"]) for event in page["events"]]


def test_a_group_reads_on_from_its_checkpoint_also_after_the_hub_was_killed(hub: HubProcess) -> None:
    service = Service(hub, "service")
    assert service.call("PUT", "/events/groups/drift") == (200, {"name": "drift"})
    _, page = service.call("GET", f"{_PATH}?limit=2")
    assert (_bodies(page), page["checkpoint"], page["lastSequenceNumber"]) == ([b"one", b"two"], -1, 2)
    assert page["events"][0]["properties"] == {"a": "b"}
    assert service.call("PUT", f"{_PATH}/checkpoint", {"sequenceNumber": 1}) == (200, {"sequenceNumber": 1})
    hub.kill()
    hub.start()
    assert _bodies(service.call("GET", _PATH)[1]) == [b"three"]
    assert _bodies(service.call("GET", f"{_PATH}?from=0")[1]) == [b"one", b"two", b"three"]
    assert _bodies(service.call("GET", _PATH.replace("drift", "$Default"))[1]) == [b"one", b"two", b"three"]
    assert service.call("GET", "/events/groups")[1] == ["$Default", "drift"]
    assert service.call("DELETE", "/events/groups/drift") == (204, None)
    assert service.call("GET", _PATH)[0] == 404


def test_every_partition_says_what_it_keeps(hub: HubProcess) -> None:
    _, partitions = Service(hub).call("GET", "/events/partitions")
    assert [state["partition"] for state in partitions] == [0, 1, 2, 3]
    assert partitions[_PARTITION]["lastSequenceNumber"] == 2
    empty = partitions[(_PARTITION + 1) % 4]
    assert (empty["firstSequenceNumber"], empty["lastSequenceNumber"], empty["lastOffset"]) == (0, -1, None)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/events/groups/nobody/partitions/0", None, 404),
        ("GET", "/events/groups/$Default/partitions/4", None, 404),
        ("GET", "/events/groups/$Default/partitions/one", None, 400),
        ("GET", "/events/groups/$Default/partitions/0?from=-1", None, 400),
        ("PUT", "/events/groups/a%20b", None, 400),
        ("DELETE", "/events/groups/$Default", None, 400),
        ("PUT", "/events/groups/$Default/partitions/0/checkpoint", {"sequenceNumber": "1"}, 400),
        ("PUT", "/events/groups/$Default/partitions/0/checkpoint", {"sequenceNumber": 10**6}, 400),
    ],
)
def test_what_is_not_there_or_makes_no_sense_is_refused(
    hub: HubProcess, method: str, path: str, body: object, status: int
) -> None:
    assert Service(hub).call(method, path, body)[0] == status


def test_reading_needs_the_right_to_connect_as_a_service(hub: HubProcess) -> None:
    for path in ("/events/partitions", "/events/groups", "/events/groups/$Default/partitions/0"):
        assert Service(hub, "registryReadWrite").call("GET", path)[0] == 401
