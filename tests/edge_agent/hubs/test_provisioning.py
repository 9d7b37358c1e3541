"""A device that knows only a provisioning service finds its hub, and says why when there is none."""

import asyncio
from pathlib import Path

import pytest

from cloud.localhub.enrollments import Kind
from cloud.localhub.limits import Limits
from edge_agent.hubs.iothub import IotHubDevice, is_azures
from shared.hub.port import HubRefusedError, HubUnavailableError
from shared.ids import DeviceId
from tests.cloud.localhub.support import Authority, hub_here

_ADDRESS, _NOBODY_ADDRESS = "127.0.0.86", "127.0.0.84"
_DEVICE = DeviceId("press-07")

pytestmark = pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning")


def _device(authority: Authority, name: str) -> IotHubDevice:
    credential = authority.issue(_DEVICE)
    return IotHubDevice(
        hostname=name,
        device_id=_DEVICE,
        certificate_file=credential.certificate_file,
        key_file=credential.key_file,
        ca_pem=authority.ca_pem,
    )


def test_a_device_is_assigned_to_its_hub_by_the_fleets_ca_and_then_speaks_to_it(tmp_path: Path) -> None:
    async def story() -> None:
        limits = Limits(provisioning_poll_s=1)
        async with hub_here(tmp_path, _ADDRESS, limits=limits, mqtt_port=8883) as (live, authority):
            scope = await live.hub.enrolling.id_scope()
            device = _device(authority, f"{scope}@{_ADDRESS}")
            with pytest.raises(HubRefusedError, match="assign a hub to press-07"):
                await device.connect()
            signing = {"signingCertificates": {"primary": {"certificate": authority.ca_pem}}}
            body = {"attestation": {"type": "x509", "x509": signing}}
            await live.hub.enrolling.put(Kind.GROUP, "fleet", body, etag=None)
            await device.connect()
            await device.send_event(b"hello")
            (event,) = await live.hub.events.read(after=0, limit=9, wait_s=10)
            assert (event.device_id, event.body) == (_DEVICE, b"hello")
            await device.close()

    asyncio.run(story())


def test_a_provisioning_service_that_is_away_is_an_outage(tmp_path: Path) -> None:
    with pytest.raises(HubUnavailableError, match="assign a hub"):
        asyncio.run(_device(Authority(tmp_path), f"0ne123@{_NOBODY_ADDRESS}").connect())


def test_only_azures_own_names_are_trusted_by_public_cas() -> None:
    assert is_azures("my-fleet.azure-devices.net")
    assert is_azures("0ne123@global.azure-devices-provisioning.net")
    assert not is_azures("azure-devices.net.example.org")
    assert not is_azures("192.0.2.10")
