"""A device's signature: for exactly this request, with a fresh nonce, from a device with access."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.device_auth import NONCE_HEADER, SignedRequest, sign
from shared.ids import Digest
from tests.support.coordinator import Machine, TestCoordinator, machine, open_coordinator
from tests.support.http import AppClient
from tests.support.signing_client import signed

WORK = "/v1/device/work"


@pytest.fixture
def coordinator(tmp_path: Path, database_url: str) -> Iterator[TestCoordinator]:
    coordinator = open_coordinator(tmp_path, database_url=database_url, body_bytes_max=1000_000)
    yield coordinator
    coordinator.engine.dispose()


def code(answer: object) -> str:
    return str(answer.json()["code"])  # type: ignore[attr-defined]  # a response


def test_a_signed_request_is_answered_and_carries_the_next_nonce(client: AppClient, device: Machine) -> None:
    answer = signed(client, device, "GET", WORK)
    assert answer.json() == {"work": [], "attached": None}
    assert answer.headers[NONCE_HEADER]


def test_a_query_is_part_of_what_is_signed(client: AppClient, device: Machine) -> None:
    assert signed(client, device, "GET", f"{WORK}?a=1&b=%20").status_code == 200


def test_an_unsigned_request_is_refused_with_a_nonce(client: AppClient) -> None:
    answer = client.get(WORK)
    assert (answer.status_code, code(answer)) == (401, "missing_device_signature")
    assert answer.headers[NONCE_HEADER]


def test_a_nonce_is_good_for_five_minutes_and_stale_after_ten(
    client: AppClient, coordinator: TestCoordinator, device: Machine
) -> None:
    nonce = client.get("/v1/nonce").headers[NONCE_HEADER]
    coordinator.clock.now += 299
    assert signed(client, device, "GET", WORK, nonce=nonce).status_code == 200
    coordinator.clock.now += 302
    answer = signed(client, device, "GET", WORK, nonce=nonce)
    assert (answer.status_code, code(answer)) == (401, "stale_nonce")
    assert signed(client, device, "GET", WORK, nonce=answer.headers[NONCE_HEADER]).status_code == 200


@pytest.mark.parametrize("nonce", ["x", "ä", "\ud800", "A" * 43])
def test_a_foreign_nonce_is_stale(client: AppClient, device: Machine, nonce: str) -> None:
    assert code(signed(client, device, "GET", WORK, nonce=nonce)) == "stale_nonce"


def test_another_key_is_refused(client: AppClient, device: Machine) -> None:
    answer = signed(client, machine(device.device_id), "GET", WORK)
    assert (answer.status_code, code(answer)) == (401, "bad_device_signature")


def test_a_device_that_is_not_enrolled_is_refused(client: AppClient) -> None:
    answer = signed(client, machine("stranger"), "GET", WORK)
    assert (answer.status_code, code(answer)) == (401, "unknown_signer")


def test_a_signature_for_another_path_or_body_is_refused(client: AppClient, device: Machine) -> None:
    nonce = client.get("/v1/nonce").headers[NONCE_HEADER]
    for path, body in [("/v1/device/else", b""), (WORK, b"other")]:
        digest = Digest(hashlib.sha256(body).hexdigest())
        token = sign(SignedRequest(device.device_id, "GET", path, digest, nonce), device.key)
        answer = client.get(WORK, headers={"Authorization": f"Device {token}"})
        assert (answer.status_code, code(answer)) == (401, "bad_device_signature")


def test_a_revoked_device_is_refused_for_good(client: AppClient, coordinator: TestCoordinator, device: Machine) -> None:
    assert client.delete(f"/v1/devices/{device.device_id}", headers=coordinator.operator).status_code == 204
    answer = signed(client, device, "GET", WORK)
    assert (answer.status_code, code(answer)) == (403, "device_revoked")
    shown = client.get(f"/v1/devices/{device.device_id}", headers=coordinator.operator).json()
    assert (shown["is_revoked"], shown["why_not_at_target"]) == (True, "revoked")


def test_a_body_beyond_the_bound_is_refused_before_it_is_read(client: AppClient, device: Machine) -> None:
    answer = signed(client, device, "POST", "/v1/device/certificate", body=b"x" * 1000_001)
    assert (answer.status_code, code(answer)) == (413, "too_large")
