"""The provisioning service: the unmodified ProvisioningDeviceClient, and enrolments through the REST API."""

import asyncio
import base64
import hmac
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device import X509, exceptions
from azure.iot.device.aio import IoTHubDeviceClient, ProvisioningDeviceClient

from cloud.localhub.__main__ import main
from cloud.localhub.enrollments import Kind, derived_key
from cloud.localhub.errors import ServiceError
from cloud.localhub.limits import Limits
from tests.cloud.localhub.support import Authority, Credential, eventually, hub_here, hub_process

_ADDRESS = "127.0.0.93"
_KEY = base64.b64encode(b"e" * 32).decode()
_LIMITS = Limits(provisioning_poll_s=1, enrollment_groups_max=3)

pytestmark = pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning")


def _with_key(key: str = _KEY, **more: Any) -> dict[str, Any]:
    keys = {"primaryKey": key, "secondaryKey": key}
    return {"attestation": {"type": "symmetricKey", "symmetricKey": keys}, **more}


def _x509(credential: Credential) -> X509:
    return X509(str(credential.certificate_file), str(credential.key_file))  # type: ignore[no-untyped-call]


async def _register(live: Any, authority: Authority, registration_id: str, key: str | X509) -> Any:
    arguments: dict[str, Any] = {
        "provisioning_host": _ADDRESS,
        "registration_id": registration_id,
        "id_scope": await live.hub.enrolling.id_scope(),
        "server_verification_cert": authority.ca_pem,
    }
    if isinstance(key, X509):
        client = ProvisioningDeviceClient.create_from_x509_certificate(x509=key, **arguments)
    else:
        client = ProvisioningDeviceClient.create_from_symmetric_key(symmetric_key=key, **arguments)
    return await client.register()


def test_an_individual_enrolment_gives_its_device_an_identity_and_an_initial_twin(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS, limits=_LIMITS, mqtt_port=8883) as (live, authority):
            twin = {"tags": {"site": "köln"}, "properties": {"desired": {"interval": 5}}}
            body = _with_key(deviceId="press-07", initialTwin=twin, registrationId="reg-1")
            await live.hub.enrolling.put(Kind.INDIVIDUAL, "reg-1", body, etag=None)
            result = await _register(live, authority, "reg-1", _KEY)
            assert result.status == "assigned"
            state = result.registration_state
            assert (state.assigned_hub, state.device_id) == (_ADDRESS, "press-07")
            assert state.sub_status == "initialAssignment"
            client = IoTHubDeviceClient.create_from_symmetric_key(
                _KEY, state.assigned_hub, state.device_id, server_verification_cert=authority.ca_pem
            )
            await client.connect()
            assert (await client.get_twin())["desired"] == {"interval": 5, "$version": 2}
            await client.patch_twin_reported_properties({"interval": 5})
            assert (await live.hub.get_device("press-07")).twin.tags == {"site": "köln"}
            # Registered again it is the same device, with its twin.
            again = await _register(live, authority, "reg-1", _KEY)
            assert again.registration_state.created_date_time == state.created_date_time
            assert (await client.get_twin())["reported"] == {"interval": 5, "$version": 2}
            await client.shutdown()

    asyncio.run(story())


def test_a_group_lets_in_who_holds_a_derived_key_and_nobody_else(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS, limits=_LIMITS, mqtt_port=8883) as (live, authority):
            await live.hub.enrolling.put(
                Kind.GROUP, "other", _with_key(base64.b64encode(b"o" * 32).decode()), etag=None
            )
            await live.hub.enrolling.put(Kind.GROUP, "presses", _with_key(), etag=None)
            # As the documentation has a device do it.
            digest = hmac.digest(base64.b64decode(_KEY), b"press-08", "sha256")
            key = base64.b64encode(digest).decode()
            result = await _register(live, authority, "press-08", key)
            assert (result.status, result.registration_state.device_id) == ("assigned", "press-08")
            assert (await live.hub.get_device("press-08")).identity.primary_key == key
            (state,) = await live.hub.enrolling.registrations_of("presses", after="", limit=10)
            assert (state["registrationId"], state["enrollmentGroupId"]) == ("press-08", "presses")
            for wrong in (derived_key(_KEY, "press-09"), _KEY):
                with pytest.raises(exceptions.CredentialError):
                    await _register(live, authority, "press-08", wrong)

    asyncio.run(story())


def test_certificates_prove_an_individual_by_itself_and_a_group_by_its_ca(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS, limits=_LIMITS, mqtt_port=8883) as (live, authority):
            own, mate = authority.issue("press-10"), authority.issue("press-11")
            pem = own.certificate_file.read_text()
            x509 = {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": pem}}}}
            await live.hub.enrolling.put(Kind.INDIVIDUAL, "press-10", {"attestation": x509}, etag=None)
            result = await _register(live, authority, "press-10", _x509(own))
            assert result.status == "assigned"
            device = IoTHubDeviceClient.create_from_x509_certificate(
                _x509(own), _ADDRESS, "press-10", server_verification_cert=authority.ca_pem
            )
            await device.connect()
            await device.shutdown()
            with pytest.raises(exceptions.CredentialError):
                await _register(live, authority, "press-11", _x509(mate))
            stranger = Authority(tmp_path / "stranger", "Stranger").ca_pem
            for number, ca_pem in enumerate((stranger, authority.ca_pem)):
                signing = {"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": ca_pem}}}}
                await live.hub.enrolling.put(Kind.GROUP, f"group-{number}", {"attestation": signing}, etag=None)
            result = await _register(live, authority, "press-11", _x509(mate))
            assert (result.status, result.registration_state.device_id) == ("assigned", "press-11")
            assert (await live.hub.enrolling.get_registration("press-11"))["enrollmentGroupId"] == "group-1"
            with pytest.raises(exceptions.CredentialError):
                await _register(live, authority, "press-12", _x509(mate))

    asyncio.run(story())


def test_a_disabled_enrolment_a_deleted_one_and_another_id_scope_let_nobody_in(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS, limits=_LIMITS, mqtt_port=8883) as (live, authority):
            body = _with_key(provisioningStatus="disabled")
            await live.hub.enrolling.put(Kind.INDIVIDUAL, "reg-1", body, etag=None)
            with pytest.raises(exceptions.ClientError):
                await _register(live, authority, "reg-1", _KEY)
            assert (await live.hub.enrolling.get_registration("reg-1"))["status"] == "disabled"
            with pytest.raises(ServiceError, match="not registered"):
                await live.hub.get_device("reg-1")
            await live.hub.enrolling.delete(Kind.INDIVIDUAL, "reg-1", etag="*")
            with pytest.raises(exceptions.CredentialError):
                await _register(live, authority, "reg-1", _KEY)
            await live.hub.enrolling.put(Kind.INDIVIDUAL, "reg-1", _with_key(), etag=None)
            client = ProvisioningDeviceClient.create_from_symmetric_key(
                _ADDRESS, "reg-1", "0ne00000000", _KEY, server_verification_cert=authority.ca_pem
            )
            with pytest.raises(exceptions.CredentialError):
                await client.register()

    asyncio.run(story())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"attestation": {"type": "tpm"}},
        {"attestation": {"type": "x509"}},
        {"attestation": {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": "no"}}}}},
        _with_key("short"),
        _with_key(provisioningStatus="perhaps"),
        _with_key(registrationId="another"),
        _with_key(deviceId="no spaces"),
        _with_key(iotHubHostName="elsewhere.azure-devices.net"),
        _with_key(initialTwin={"tags": {"a.b": 1}}),
        _with_key(initialTwin={"tags": {"a": "x" * 9_000}}),
    ],
)
def test_an_enrolment_that_cannot_be_is_refused(tmp_path: Path, body: dict[str, Any]) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, _):
            with pytest.raises(ServiceError) as refused:
                await live.hub.enrolling.put(Kind.INDIVIDUAL, "reg-1", body, etag=None)
            assert refused.value.status in (400, 413)

    asyncio.run(story())


def test_enrolments_are_guarded_by_their_etag_and_keep_their_keys(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS, limits=_LIMITS) as (live, _):
            service = live.hub.enrolling
            first = await service.put(Kind.GROUP, "Presses", {"attestation": {"type": "symmetricKey"}}, etag=None)
            assert first.enrollment_id == "presses"
            with pytest.raises(ServiceError) as refused:
                await service.put(Kind.GROUP, "presses", _with_key(), etag=None)
            assert refused.value.status == 409
            with pytest.raises(ServiceError) as refused:
                await service.put(Kind.GROUP, "presses", _with_key(), etag="7")
            assert refused.value.status == 412
            disabled = {"attestation": {"type": "symmetricKey"}, "provisioningStatus": "disabled"}
            second = await service.put(Kind.GROUP, "presses", disabled, etag="1")
            assert (second.keys, second.is_enabled, second.etag) == (first.keys, False, 2)
            for name in ("a", "b"):
                await service.put(Kind.GROUP, name, _with_key(), etag=None)
            with pytest.raises(ServiceError) as refused:
                await service.put(Kind.GROUP, "c", _with_key(), etag=None)
            assert refused.value.name == "TooManyEnrollments"
            page = await service.page(Kind.GROUP, after="a", limit=10)
            assert [enrollment.enrollment_id for enrollment in page] == ["b", "presses"]

    asyncio.run(story())


@pytest.mark.processes
def test_the_command_line_enrols_a_group_and_sends_what_its_device_then_receives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with hub_process(tmp_path, _ADDRESS) as hub:
        where = ["--data", str(hub.data_dir), "--hostname", hub.service, "--ca", str(hub.authority.ca_file)]

        def command(*arguments: str) -> tuple[int, str]:
            code = main([*arguments, *where])
            return code, capsys.readouterr().out.strip()

        code, printed = command("enroll", "presses", "--group")
        assert code == 0
        given = dict(part.split("=", 1) for part in printed.split(";"))

        async def story() -> None:
            key = derived_key(given["SymmetricKey"], "press-07")
            client = ProvisioningDeviceClient.create_from_symmetric_key(
                given["ProvisioningHost"],
                "press-07",
                given["IdScope"],
                key,
                server_verification_cert=hub.authority.ca_pem,
            )
            state: Any = (await client.register()).registration_state
            assert (state.device_id, state.assigned_hub) == ("press-07", _ADDRESS)
            sent = await asyncio.to_thread(
                command, "send", "press-07", "grüße", "--property", "a=ü", "--message-id", "1", "--ack", "full"
            )
            assert sent == (0, "")
            device = IoTHubDeviceClient.create_from_symmetric_key(
                key, _ADDRESS, "press-07", server_verification_cert=hub.authority.ca_pem
            )
            got: list[Any] = []

            async def on_message(message: Any) -> None:
                got.append(message)

            await device.connect()
            device.on_message_received = on_message
            await eventually(lambda: got)
            assert (got[0].data.decode(), got[0].custom_properties, got[0].ack) == ("grüße", {"a": "ü"}, "full")
            await device.shutdown()

        asyncio.run(story())
        assert command("send", "nobody", "x")[0] == 1
        assert command("send", "press-07", "x", "--property", "a")[0] == 1
