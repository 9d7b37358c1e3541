"""Enrolment: what is let in, and one clear refusal for each thing that can be wrong."""

import asyncio
from pathlib import Path

import pytest
from cryptography import x509

from cloud.pki.certificates import fingerprint
from shared.api.enrolment import EnrolmentToken, RenewRequest
from shared.hub.port import HubUnavailableError
from shared.ids import DeviceId
from tests.support.coordinator import Machine, TestCoordinator, enrol, machine, make_token, open_coordinator
from tests.support.http import AppClient
from tests.support.signing_client import signed


def ask(client: AppClient, secret: str, device: Machine, *, csr_name: str | None = None) -> tuple[int, str]:
    body = {"secret": secret, "device_id": device.device_id, "csr_pem": device.csr(name=csr_name)}
    answer = client.post("/v1/enrol", json=body)
    return answer.status_code, answer.json().get("code", "")


def test_a_token_becomes_a_certificate_for_the_devices_own_key(client: AppClient, coordinator: TestCoordinator) -> None:
    device = machine()
    enrolled = enrol(client, coordinator, device)
    certificate = x509.load_pem_x509_certificate(enrolled["certificate_pem"].encode())
    assert certificate.public_key() == device.key.public_key()
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(enrolled["ca_pem"].encode()))
    assert enrolled["tuf_root"].startswith("{")
    asyncio.run(coordinator.memory.fleet().get_twin(device.device_id))  # The hub knows it.


def test_enrolment_tells_the_device_its_broker_and_whom_to_trust_there(tmp_path: Path) -> None:
    (tmp_path / "broker-ca.pem").write_text("the CA of the broker")
    hub = {"hub": "mqtts://inside:8884/plant", "hub_for_devices": "mqtts://outside:8883/plant"}
    coordinator = open_coordinator(tmp_path / "data", **hub, hub_ca_file=str(tmp_path / "broker-ca.pem"))
    with coordinator.client() as client:
        enrolled = enrol(client, coordinator, machine())
    coordinator.engine.dispose()
    assert (enrolled["hub_url"], enrolled["hub_ca_pem"]) == ("mqtts://outside:8883/plant", "the CA of the broker")


def test_a_token_names_the_coordinator_and_pins_its_ca(client: AppClient, coordinator: TestCoordinator) -> None:
    text = client.post("/v1/tokens", json={}, headers=coordinator.operator).json()["token"]
    token = EnrolmentToken.decode(text)
    ca = x509.load_pem_x509_certificate(client.get("/v1/ca").text.encode())
    assert token.ca_fingerprint == fingerprint(ca)
    assert token.coordinator_url == coordinator.services.settings.url


def test_the_token_itself_is_not_in_the_database(client: AppClient, coordinator: TestCoordinator) -> None:
    secret = make_token(client, coordinator)
    everything = b"".join(path.read_bytes() for path in coordinator.services.settings.data_dir.glob("*.sqlite*"))
    assert secret.encode() not in everything


def test_a_wrong_token_is_refused(client: AppClient, coordinator: TestCoordinator) -> None:
    make_token(client, coordinator)
    assert ask(client, "x" * 40, machine()) == (401, "unknown_enrolment_token")


def test_a_used_token_is_refused_to_another_key(client: AppClient, coordinator: TestCoordinator) -> None:
    secret = make_token(client, coordinator)
    assert ask(client, secret, machine("first"))[0] == 200
    assert ask(client, secret, machine("first")) == (409, "enrolment_token_used")
    assert ask(client, secret, machine("second")) == (409, "enrolment_token_used")


def test_an_expired_token_is_refused(client: AppClient, coordinator: TestCoordinator) -> None:
    secret = make_token(client, coordinator, expires_in_s=60)
    coordinator.clock.now += 61
    assert ask(client, secret, machine()) == (403, "enrolment_token_expired")


def test_a_token_of_one_device_is_refused_to_another_and_stays_good(
    client: AppClient, coordinator: TestCoordinator
) -> None:
    secret = make_token(client, coordinator, device_id="press-07", tags={"site": "north"})
    assert ask(client, secret, machine("press-08")) == (403, "enrolment_token_for_other_device")
    assert ask(client, secret, machine("press-07"))[0] == 200
    shown = client.get("/v1/devices/press-07", headers=coordinator.operator).json()
    assert shown["tags"] == {"site": "north"}


def test_a_csr_for_another_devices_name_is_refused(client: AppClient, coordinator: TestCoordinator) -> None:
    secret = make_token(client, coordinator)
    assert ask(client, secret, machine("press-07"), csr_name="press-08") == (422, "certificate_for_other_name")


def test_a_name_is_never_used_again(client: AppClient, coordinator: TestCoordinator) -> None:
    enrol(client, coordinator, machine("press-07"))
    assert client.delete("/v1/devices/press-07", headers=coordinator.operator).status_code == 204
    secret = make_token(client, coordinator)
    assert ask(client, secret, machine("press-07")) == (409, "device_id_taken")


@pytest.mark.parametrize(
    "csr", ["", "no pem", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"]
)
def test_something_else_than_a_csr_is_refused(client: AppClient, coordinator: TestCoordinator, csr: str) -> None:
    secret = make_token(client, coordinator)
    answer = client.post("/v1/enrol", json={"secret": secret, "device_id": "press-07", "csr_pem": csr})
    assert (answer.status_code, answer.json()["code"]) == (422, "malformed_certificate_request")


def test_an_enrolment_that_the_hub_did_not_hear_of_succeeds_when_asked_again(
    coordinator: TestCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, hub = machine(), coordinator.services.hub

    async def away(device_id: DeviceId) -> None:
        raise HubUnavailableError("Expected the hub, it is away")

    with coordinator.client() as client:
        secret = make_token(client, coordinator)
        with monkeypatch.context() as broken:
            broken.setattr(hub, "add_device", away)
            assert ask(client, secret, device) == (503, "hub_unavailable")
        coordinator.clock.now += 7200  # Longer than the token lives.
        assert ask(client, secret, device) == (200, "")
    asyncio.run(coordinator.memory.fleet().get_twin(device.device_id))


def test_a_renewed_certificate_keeps_the_name_and_the_old_key_is_good_until_the_new_one_is_used(
    client: AppClient, coordinator: TestCoordinator
) -> None:
    old, new = machine("press-07"), machine("press-07")
    enrol(client, coordinator, old)
    headers = {"Content-Type": "application/json"}
    body = RenewRequest(csr_pem=new.csr()).model_dump_json().encode()
    for _ in range(2):  # The first answer got lost.
        renewed = signed(client, old, "POST", "/v1/device/certificate", body=body, headers=headers)
        assert renewed.status_code == 200, renewed.text
    certificate = x509.load_pem_x509_certificate(renewed.json()["certificate_pem"].encode())
    assert certificate.public_key() == new.key.public_key()
    assert signed(client, old, "GET", "/v1/device/work").status_code == 200
    assert signed(client, new, "GET", "/v1/device/work").status_code == 200
    assert signed(client, old, "GET", "/v1/device/work").status_code == 401
