"""The hub itself: identities, twins, events and methods over the store and the live connections.

Both doors, MQTT for devices and HTTPS for services, end here; this module knows neither. Each change is one operation
of the store, and what a change leads to (a notification, an acknowledgement) happens after its commit.
"""

import asyncio
import json
import math
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cloud.localhub import tables, topics, twins
from cloud.localhub.bulk import change_identities
from cloud.localhub.certificates import PeerCertificate
from cloud.localhub.configuring import Configurator
from cloud.localhub.devices import (
    AuthType,
    Identity,
    Presence,
    Status,
    check_certificate,
    etag_of,
    split_key,
    updated,
)
from cloud.localhub.enrolling import Enrolling
from cloud.localhub.errors import (
    RefusedError,
    ServiceError,
    check_etag,
    device_exists,
    module_exists,
    too_many_devices,
)
from cloud.localhub.event_log import EventLog
from cloud.localhub.files import Files
from cloud.localhub.gates import Gates
from cloud.localhub.limits import Limits
from cloud.localhub.links import Link, Links, MethodResult
from cloud.localhub.mailbox import Mailbox
from cloud.localhub.methods import parse_method
from cloud.localhub.policies import Policy, Right, new_key
from cloud.localhub.provisioning import Provisioning
from cloud.localhub.query.run import Page, Place, page, prepare, project
from cloud.localhub.query.tree import Query, Source
from cloud.localhub.running_jobs import Jobs
from cloud.localhub.sas import check_sas, parse_sas
from cloud.localhub.session import Authenticate
from cloud.localhub.store import Store
from cloud.localhub.tables import Device
from cloud.localhub.throttles import Operation
from cloud.localhub.times import iso
from cloud.localhub.transferring import Transfers


@dataclass(frozen=True)
class Proven:
    """A device that may connect, and until when, in seconds since the epoch."""

    device: Device
    expiry: float


class Hub:
    """What IoT Hub does. `clock` gives seconds since the epoch, `hostname` is what devices dial."""

    def __init__(
        self,
        store: Store,
        policies: Mapping[str, Policy],
        *,
        limits: Limits,
        clock: Callable[[], float],
        hostname: str,
        files_dir: Path,
        gates: Gates | None = None,
    ) -> None:
        self.limits = limits
        self.gates = gates or Gates(clock=clock)
        self.policies = policies
        self.links = Links(methods_pending_max=limits.methods_pending_max, clock=clock)
        self.events = EventLog(store, limits=limits, clock=clock)
        self.mailbox = Mailbox(store, self.links, limits=limits, clock=clock, now=self.now)
        self.provisioning = Provisioning(store, hostname=hostname, limits=limits, clock=clock, now=self.now)
        self.enrolling = Enrolling(store, hostname=hostname, limits=limits, now=self.now)
        key = policies["iothubowner"].primary_key
        self.files = Files(store, files_dir, key=key, limits=limits, clock=clock, now=self.now)
        self.configurator = Configurator(
            store, now=self.now, presence=self._presence_text, configurations_max=limits.configurations_max
        )
        self.jobs = Jobs(
            store,
            limits=limits,
            clock=clock,
            presence=self._presence_text,
            invoke=self.invoke_method,
            twin_changed=self.twin_changed,
            pace=lambda devices: self.gates.pace(Operation.JOB_DEVICE, cost=devices),
        )
        self.transfers = Transfers(store, clock=clock, change=lambda entries: change_identities(self, entries))
        self._store = store
        self._clock = clock

    def time(self) -> float:
        return self._clock()

    def now(self) -> str:
        """The time in ISO 8601, UTC."""
        return iso(self._clock())

    # Devices, over MQTT

    async def authenticate(self, request: Authenticate, certificate: PeerCertificate | None) -> "Proven":
        """The device or module that proved who it is. Raises RefusedError."""
        device, parent = await self._store.submit(lambda database: tables.find_with_parent(database, request.key))
        if device is None or parent is None:
            raise RefusedError(f"Expected a registered device or module, got {request.key[:260]!r}")
        if parent.identity.status is not Status.ENABLED:
            raise RefusedError(f"Expected an enabled device, got {request.key!r}, which is disabled")
        expiry = math.inf
        if request.token is not None:
            expiry = self._check_token(request, device.identity)
        elif certificate is not None:
            check_certificate(device.identity, common_name=certificate.common_name, thumbprints=certificate.thumbprints)
        else:
            raise RefusedError(f"Expected a token or a certificate from {request.key!r}, got neither")
        if request.model_id and request.model_id != device.identity.model_id:
            device = await self._store.submit(lambda database: _with_model(database, request.key, request.model_id))
        return Proven(device, expiry)

    def _check_token(self, request: Authenticate, identity: Identity) -> float:
        token = parse_sas(request.token or "")
        if token.policy is not None:
            policy = self.policies.get(token.policy)
            if policy is None or Right.DEVICE_CONNECT not in policy.rights:
                raise RefusedError(f"Expected a policy with DeviceConnect, got {token.policy[:80]!r}")
            keys = policy.keys
        else:
            if identity.auth_type is not AuthType.SAS:
                raise RefusedError(f"Expected a certificate from {identity.key!r}, got a token")
            keys = (identity.primary_key or "", identity.secondary_key or "")
        resource = f"{request.hostname}/{topics.topic_base(identity.key)}"
        check_sas(token, keys=[key for key in keys if key], resource=resource, now=self._clock())
        return float(token.expiry)

    def keep_filters(self, key: str, filters: tables.Filters) -> "asyncio.Future[None]":
        """Keeps a session's subscriptions for its next connection."""
        return self._store.submit(lambda database: tables.put_filters(database, key, filters))

    async def twin_of(self, device_id: str) -> twins.Twin:
        return (await self.get_device(device_id)).twin

    async def patch_reported(self, device_id: str, body: bytes) -> int:
        """Merges into the reported properties and returns the new version. Raises ServiceError."""
        patch, now = twins.parse_patch(body, name="reported properties"), self.now()

        def operation(database: sqlite3.Connection) -> int:
            device = tables.get_device(database, device_id)
            reported = twins.patch_section(device.twin.reported, patch, now=now, name="reported")
            tables.put_device(database, replace(device, twin=replace(device.twin, reported=reported)))
            return reported.version

        self.links.saw_activity(device_id)
        version = await self._store.submit(operation)
        self.configurator.changed(device_id)
        return version

    # Identities

    async def get_device(self, device_id: str) -> Device:
        """Raises ServiceError where there is none."""
        return await self._store.submit(lambda database: tables.get_device(database, device_id))

    async def has_identity(self, key: str) -> bool:
        return await self._store.submit(lambda database: tables.find_device(database, key)) is not None

    def presence(self, device_id: str) -> Presence:
        return self.links.presence(device_id)

    async def put_identity(self, key: str, body: Mapping[str, Any], *, etag: str | None) -> Device:
        """Creates a device or module without an ETag, updates with one (`*` matches any). Raises ServiceError."""
        split_key(key)
        now, generation, fresh_keys = self.now(), str(secrets.randbits(60)), (new_key(), new_key())

        def operation(database: sqlite3.Connection) -> Device:
            device = tables.find_device(database, key)
            if etag is None:
                device = self._blank(database, device, key, generation, now)
            else:
                device = tables.get_device(database, key)
                check_etag(etag, device.identity.etag)
            identity = updated(device.identity, body, now=now, fresh_keys=fresh_keys)
            identity = replace(identity, etag=str(int(identity.etag) + 1))
            return tables.put_device(database, replace(device, identity=identity))

        device = await self._store.submit(operation)
        if device.identity.status is Status.DISABLED:
            self.links.forget(key, reason="the device was disabled")
        self.configurator.changed(key)
        return device

    def _blank(
        self, database: sqlite3.Connection, existing: Device | None, key: str, generation: str, now: str
    ) -> Device:
        device_id, module_id = split_key(key)
        if existing is not None:
            raise module_exists(key) if module_id else device_exists(key)
        if module_id:
            tables.get_device(database, device_id)
            if tables.count_modules(database, device_id) >= self.limits.modules_max:
                message = f"Expected at most {self.limits.modules_max} modules on a device, got one more"
                raise ServiceError(413, 413003, "TooManyModulesOnDevice", message)
        elif tables.count_devices(database) >= self.limits.devices_max:
            raise too_many_devices(self.limits.devices_max)
        return Device(Identity(device_id, generation, etag="0", module_id=module_id), twins.new_twin(now))

    async def delete_identity(self, key: str, *, etag: str) -> None:
        """Forgets the device with its modules, or the module, and closes its connections. Raises ServiceError."""

        def operation(database: sqlite3.Connection) -> None:
            check_etag(etag, tables.get_device(database, key).identity.etag)
            tables.delete_device(database, key)

        await self._store.submit(operation)
        self.links.forget(key, reason="the device was deleted")

    async def list_modules(self, device_id: str) -> list[Device]:
        """Raises ServiceError where there is no such device."""

        def operation(database: sqlite3.Connection) -> list[Device]:
            tables.get_device(database, device_id)
            return tables.list_modules(database, device_id)

        return await self._store.submit(operation)

    async def list_devices(self, *, limit: int) -> list[Device]:
        return await self._store.submit(lambda database: tables.list_devices(database, after="", limit=limit))

    async def count_devices(self) -> tuple[int, int]:
        """Enabled and disabled devices."""
        return await self._store.submit(tables.count_by_status)

    # Twins

    async def patch_twin(self, key: str, body: Mapping[str, Any], *, etag: str) -> Device:
        """Merges tags and desired properties. Raises ServiceError."""
        parts, now = twins.parts_of(body), self.now()
        device = await self._store.submit(lambda database: tables.patch_twin(database, key, parts, etag=etag, now=now))
        self.twin_changed(device, parts.get("desired"))
        return device

    async def replace_twin(self, device_id: str, body: Mapping[str, Any], *, etag: str) -> Device:
        """Replaces tags and desired properties by exactly these. Raises ServiceError."""
        parts, now = twins.parts_of(body), self.now()
        new_desired, new_tags = parts.get("desired", {}), parts.get("tags") or {}

        def operation(database: sqlite3.Connection) -> tuple[Device, dict[str, Any]]:
            device = tables.get_device(database, device_id)
            check_etag(etag, etag_of(device.twin.version))
            difference = twins.difference(device.twin.desired.document, new_desired)
            desired = twins.replace_section(device.twin.desired, new_desired, now=now, name="desired")
            twin = twins.patch_tags(replace(device.twin, tags={}), new_tags)
            twin = replace(twin, desired=desired, version=twin.version + 1)
            return tables.put_device(database, replace(device, twin=twin)), difference

        device, difference = await self._store.submit(operation)
        self.twin_changed(device, difference)
        return device

    def twin_changed(self, device: Device, desired_patch: dict[str, Any] | None) -> None:
        """After a service's change is on disk: tells the device and what configures it."""
        self.notify(device, desired_patch)
        self.configurator.changed(device.identity.key)

    def notify(self, device: Device, desired_patch: dict[str, Any] | None) -> None:
        """Tells a connected device of a change of its desired properties, once it is on disk."""
        link = self.links.get(device.identity.key)
        if link is not None and desired_patch is not None:
            link.notify_desired(desired_patch, device.twin.desired.version)

    async def query(self, query: Query, place: Place, *, limit: int) -> tuple[list[dict[str, Any]], Place | None]:
        """A page of what matches, and where to go on, or None. Raises ServiceError."""

        def operation(database: sqlite3.Connection) -> Page:
            prepare(database, self._presence_text)
            return page(database, query, place, limit=limit)

        found = await self._store.read(operation)
        return [self._document(query, row) for row in found.rows], found.following

    def _document(self, query: Query, row: tuple[Any, ...]) -> dict[str, Any]:
        """A row of a query's page as its answer."""
        if query.is_aggregate:
            return dict(row[0])
        if query.source is Source.JOBS:
            return dict(json.loads(row[1]))
        form = self.twin_form(Device(Identity.loads(row[1]), twins.Twin.loads(row[2]), messages=row[3]))
        return project(form, query.columns) if query.columns else form

    def _presence_text(self, key: str, name: str) -> str:
        presence = self.presence(key)
        return presence.state if name == "connectionState" else presence.last_activity

    def twin_form(self, device: Device) -> dict[str, Any]:
        """The twin as the service API answers it."""
        identity, twin, presence = device.identity, device.twin, self.presence(device.identity.key)
        return {
            "deviceId": identity.device_id,
            **({"moduleId": identity.module_id} if identity.module_id else {}),
            "etag": etag_of(twin.version),
            "deviceEtag": identity.etag,
            "status": identity.status,
            "statusReason": identity.status_reason,
            "statusUpdateTime": identity.status_updated,
            "connectionState": presence.state,
            "lastActivityTime": presence.last_activity,
            "cloudToDeviceMessageCount": device.messages,
            "authenticationType": identity.auth_type,
            "x509Thumbprint": {
                "primaryThumbprint": identity.primary_thumbprint,
                "secondaryThumbprint": identity.secondary_thumbprint,
            },
            "modelId": identity.model_id,
            "version": twin.version,
            "tags": twin.tags,
            "properties": {"desired": twin.desired.for_service(), "reported": twin.reported.for_service()},
            "capabilities": {"iotEdge": False},
        }

    # Methods

    async def invoke_method(self, key: str, body: Mapping[str, Any]) -> MethodResult:
        """Calls a direct method on a connected device or module. Raises ServiceError."""
        call = parse_method(body)
        await self.get_device(key)
        return await self.links.invoke(
            key,
            call.name,
            call.payload,
            connect_timeout_s=call.connect_timeout_s,
            response_timeout_s=call.response_timeout_s,
        )

    async def expire(self) -> None:
        """Ends messages, feedback and notices that are over their time."""
        await self.mailbox.expire()
        await self._store.submit(self.files.notices.expire)

    def stop(self) -> None:
        """Closes all connections and lets waiting readers go."""
        self.events.stop()
        for link in self.links.all():
            link.close("the hub is stopping")

    def add_link(self, link: Link) -> None:
        """Takes a proven connection in. What the older one of the same identity did not acknowledge is free again."""
        older = self.links.add(link)
        if older is not None:
            self.mailbox.disconnected(older)

    def remove_link(self, link: Link) -> None:
        """Takes a connection that ended out of the books."""
        self.links.remove(link)
        self.mailbox.disconnected(link)


def _with_model(database: sqlite3.Connection, key: str, model_id: str) -> Device:
    """Notes the model that the device says it implements. Raises ServiceError where it is gone meanwhile."""
    device = tables.get_device(database, key)
    return tables.put_device(database, replace(device, identity=replace(device.identity, model_id=model_id)))
