"""Which devices are connected now, and the direct methods they have yet to answer. No store, no sockets."""

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cloud.localhub import topics
from cloud.localhub.bell import Bell
from cloud.localhub.codec import Packet, Publish
from cloud.localhub.devices import Presence
from cloud.localhub.errors import MqttError, ServiceError
from cloud.localhub.session import Session
from cloud.localhub.times import iso

METHOD_BYTES_MAX = 128 * 1024


@dataclass(frozen=True)
class MethodResult:
    status: int
    payload: Any


@dataclass(eq=False)
class Link:
    """One device's live connection, as the hub sees it; the shell gives the two functions."""

    session: Session
    send: Callable[[Packet], None]
    close: Callable[[str], None]
    methods: dict[str, "asyncio.Future[MethodResult]"] = field(default_factory=dict)
    messages: dict[int, int] = field(default_factory=dict)
    """Messages that were sent and not acknowledged yet: packet id to sequence number."""
    seen_at: float = 0.0
    """When the device last sent something, in seconds since the epoch; 0 for not since it connected."""

    @property
    def takes_methods(self) -> bool:
        return topics.METHODS_FILTER in self.session.filters

    def notify_desired(self, patch: dict[str, Any], version: int) -> None:
        """Sends a change of the desired properties, if the device listens to them."""
        if topics.DESIRED_FILTER in self.session.filters:
            body = json.dumps({**patch, "$version": version}, ensure_ascii=False).encode()
            self.send(Publish(topics.desired_topic(version), body))

    def answer_method(self, rid: str, status: int, body: bytes) -> None:
        """Hands the device's answer to its caller; one that nobody waits for is dropped. Raises MqttError."""
        if len(body) > METHOD_BYTES_MAX:
            raise MqttError(f"Expected a method's answer of at most {METHOD_BYTES_MAX} bytes, got {len(body)}")
        future = self.methods.get(rid)
        if future is not None and not future.done():
            future.set_result(MethodResult(status, _parse_answer(body)))


class Links:
    """All live connections, one a device: a newer one closes the older."""

    def __init__(self, *, methods_pending_max: int, clock: Callable[[], float]) -> None:
        self._links: dict[str, Link] = {}
        self._modules: dict[str, set[str]] = {}
        """The keys of the modules that connected, by device."""
        self._presences: dict[str, Presence] = {}
        self._changed = Bell()
        self._rids = itertools.count(1)
        self._methods_pending_max = methods_pending_max
        self._clock = clock

    def __len__(self) -> int:
        return len(self._links)

    def add(self, link: Link) -> Link | None:
        """Takes the connection in; returns the older one of the same identity, which it closes."""
        key = link.session.key
        older = self._links.pop(key, None)
        if older is not None:
            self._fail_methods(older)
            older.close("the device connected again")
        self._links[key] = link
        now = iso(self._clock())
        self._presences[key] = Presence(True, now, now)
        device_id, slash, _ = key.partition("/")
        if slash:
            self._modules.setdefault(device_id, set()).add(key)
        self._changed.ring()
        return older

    def remove(self, link: Link) -> None:
        """Forgets a connection that ended; one that was replaced is forgotten already."""
        device_id = link.session.key
        if self._links.get(device_id) is link:
            seen = self.presence(device_id).last_activity
            del self._links[device_id]
            self._presences[device_id] = Presence(False, iso(self._clock()), seen)
        self._fail_methods(link)

    def forget(self, key: str, *, reason: str) -> None:
        """Closes the connections of a device that may no longer have one, and of its modules."""
        for each in {key} | self._modules.pop(key, set()):
            link = self._links.pop(each, None)
            self._presences.pop(each, None)
            if link is not None:
                self._fail_methods(link)
                link.close(reason)

    def get(self, device_id: str) -> Link | None:
        return self._links.get(device_id)

    def all(self) -> list[Link]:
        return list(self._links.values())

    def presence(self, device_id: str) -> Presence:
        presence, link = self._presences.get(device_id, Presence()), self._links.get(device_id)
        return presence if link is None or not link.seen_at else replace(presence, last_activity=iso(link.seen_at))

    def saw_activity(self, device_id: str) -> None:
        """Notes that the device sent something."""
        if (link := self._links.get(device_id)) is not None:
            link.seen_at = self._clock()

    def subscriptions_changed(self) -> None:
        self._changed.ring()

    async def invoke(
        self, device_id: str, name: str, payload: object, *, connect_timeout_s: float, response_timeout_s: float
    ) -> MethodResult:
        """Calls a direct method. Raises ServiceError when the device is away, busy or silent."""
        link = await self._changed.wait_for(lambda: self._listening(device_id), timeout_s=connect_timeout_s)
        if link is None:
            raise _offline(connect_timeout_s)
        if len(link.methods) >= self._methods_pending_max:
            message = f"Expected at most {self._methods_pending_max} pending methods for a device, got one more"
            raise ServiceError(429, 429001, "ThrottlingException", message)
        rid = f"{next(self._rids):x}"
        future: asyncio.Future[MethodResult] = asyncio.get_running_loop().create_future()
        link.methods[rid] = future
        try:
            link.send(Publish(topics.method_topic(name, rid), json.dumps(payload).encode()))
            async with asyncio.timeout(response_timeout_s):
                return await future
        except TimeoutError:
            raise _silent(response_timeout_s) from None
        finally:
            link.methods.pop(rid, None)

    def _listening(self, device_id: str) -> Link | None:
        link = self._links.get(device_id)
        return link if link is not None and link.takes_methods else None

    def _fail_methods(self, link: Link) -> None:
        for future in link.methods.values():
            if not future.done():
                future.set_exception(_offline(0))


def _parse_answer(body: bytes) -> Any:
    if not body:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MqttError("Expected a method's answer as JSON, got something else") from error


def _offline(waited_s: float) -> ServiceError:
    message = f"Timed out waiting for device to connect, after {waited_s:g} s."
    return ServiceError(404, 404103, "DeviceNotOnline", message)


def _silent(waited_s: float) -> ServiceError:
    message = f"Timed out waiting for the response from device, after {waited_s:g} s."
    return ServiceError(504, 504101, "GatewayTimeout", message)
