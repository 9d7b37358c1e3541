"""Opens an Azure IoT Hub for the coordinator: by connection strings, or by an identity of Microsoft Entra ID."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud.hubs.access import Access, ConnectionStringError, EntraAccess, KeyAccess
from cloud.hubs.event_hub import EventHubEvents
from cloud.hubs.iothub import IotHubFleet
from shared.hub.port import HubRefusedError

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.eventhub.aio import EventHubConsumerClient


_RECLAIM_S = 5.0
"""How soon a partition whose reading failed is read again."""


@dataclass(frozen=True)
class AzureHub:
    """Which hub, and where its events are read.

    Args:
        hub: A service connection string, or the bare host name, which means an identity of Entra ID.
        events: The connection string of the Event Hubs-compatible endpoint with its `EntityPath`, or
            `NAMESPACE.servicebus.windows.net/NAME`, which means the same identity.
        consumer_group: One that nothing else reads.
        inbox_file: Where events wait for the coordinator.
    """

    hub: str
    events: str
    consumer_group: str
    inbox_file: Path


def open_azure(hub: AzureHub) -> IotHubFleet:
    """The fleet behind the hub. Call it in the running loop. Raises HubError where the settings make no sense."""
    if not hub.events:
        raise ConnectionStringError(
            "Expected the hub's Event Hubs-compatible endpoint in hub_events, got nothing",
            hint="`az iot hub connection-string show --default-eventhub` prints it; the portal: Built-in endpoints.",
        )
    events = EventHubEvents(consumer(hub.events, group=hub.consumer_group), inbox_file=hub.inbox_file)
    return IotHubFleet(access(hub.hub), ca_file=None, events=events)


def access(hub: str) -> Access:
    """By key where the text is a connection string, else by identity."""
    return KeyAccess(hub) if "=" in hub else EntraAccess(hub, _credential())


def consumer(
    endpoint: str, *, group: str, ca_file: Path | None = None, address: str = ""
) -> "Callable[[], EventHubConsumerClient]":
    """Makes clients of the endpoint; `ca_file` and `address` (`sb://host:port`) are for one that is not Azure's."""
    try:
        from azure.eventhub.aio import EventHubConsumerClient
    except ImportError as error:
        raise _missing(error) from error
    # Trying again is ours: the SDK's own would keep a refusal from us for a quarter of a minute.
    options: dict[str, Any] = {"retry_total": 0, "load_balancing_interval": _RECLAIM_S}
    if address:
        options["custom_endpoint_address"] = address
    if ca_file is not None:
        options["connection_verify"] = str(ca_file)

    def make() -> "EventHubConsumerClient":
        if "=" in endpoint:
            return EventHubConsumerClient.from_connection_string(endpoint, group, **options)
        namespace, _, name = endpoint.partition("/")
        return EventHubConsumerClient(namespace, name, group, credential=_credential(), **options)

    return make


def _credential() -> "AsyncTokenCredential":
    try:
        from azure.identity.aio import DefaultAzureCredential
    except ImportError as error:
        raise _missing(error) from error
    return DefaultAzureCredential()


def _missing(error: ImportError) -> HubRefusedError:
    return HubRefusedError(
        f"Expected the packages for Azure IoT Hub, got: {error}",
        hint="Install them with `pip install fleetlearn[azure]`.",
    )
