"""Asks a Device Provisioning Service which hub this device belongs to: adapts azure-iot-device.

Where a device's hub is named `ID_SCOPE@HOST`, that is a provisioning service and not a hub: the device registers there
with its certificate, under its own name, and dials the hub that it is told.
"""

import asyncio
import logging
from pathlib import Path

from shared.hub.port import HubRefusedError, HubUnavailableError
from shared.ids import DeviceId

_REGISTER_S = 120.0


def is_provisioned(hostname: str) -> bool:
    """Whether the name is a provisioning service's."""
    return "@" in hostname


async def assigned_hub(
    name: str, *, device_id: DeviceId, certificate_file: Path, key_file: Path, ca_pem: str | None
) -> str:
    """The hub's host. Raises HubUnavailableError, or HubRefusedError where the service has no hub for this device."""
    from azure.iot.device import X509, exceptions
    from azure.iot.device.aio import ProvisioningDeviceClient

    logging.getLogger("azure.iot.device").setLevel(logging.CRITICAL)
    id_scope, _, host = name.partition("@")
    client = ProvisioningDeviceClient.create_from_x509_certificate(
        provisioning_host=host,
        registration_id=device_id,
        id_scope=id_scope,
        x509=X509(str(certificate_file), str(key_file)),  # type: ignore[no-untyped-call]  # the SDK's
        server_verification_cert=ca_pem,
    )
    try:
        async with asyncio.timeout(_REGISTER_S):
            result = await client.register()
    except exceptions.CredentialError as error:
        raise _refused(host, device_id, "a refusal of the device's certificate") from error
    except Exception as error:
        # Of its other errors the SDK does not say which of them another try may mend.
        raise HubUnavailableError(
            f"Expected {host} to assign a hub, got {type(error).__name__}: {str(error)[:200]}"
        ) from error
    state = result.registration_state
    if result.status != "assigned" or state is None:
        raise _refused(host, device_id, f"the status {result.status!r}")
    return str(state.assigned_hub)


def _refused(host: str, device_id: DeviceId, what: str) -> HubRefusedError:
    return HubRefusedError(
        f"Expected {host} to assign a hub to {device_id}, got {what}",
        hint="Enrol the fleet's CA, or this device, with the provisioning service.",
    )
