"""Boards without a clock: TLS with the coordinator at the time the device has proved, and nothing weaker than that."""

import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.pki.authority import load_or_create_authority
from edge_agent.certificate_time import Trust, coordinator_trust
from edge_agent.errors import CoordinatorIdentityError
from edge_agent.https import HttpsOrigin
from edge_agent.releases.clock import raise_floor
from tests.edge_agent.coordinator import Served, Wire, served

ADDRESS = "127.0.0.42"
YEAR_S = 365 * 86_400.0
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("coordinator"), address=ADDRESS) as running:
        yield running


def trust(ca_pem: str, state_dir: Path, *, proved: float, system: float = 0.0) -> Trust:
    """What a board trusts whose clock says `system`, after metadata of the time `proved`."""
    raise_floor(state_dir, proved_time=proved)
    return coordinator_trust(ca_pem, state_dir=state_dir, system_time=lambda: system)


def ask(url: str, trusted: Trust) -> int:
    origin = HttpsOrigin(url, trusted.context, check=trusted.check)
    try:
        return origin.request("GET", "/v1/nonce", headers={}).status
    finally:
        origin.close()


def test_a_board_in_1970_talks_to_a_coordinator_of_today(coordinator: Served, tmp_path: Path) -> None:
    board = trust(coordinator.ca_pem, tmp_path, proved=time.time() - 60)
    assert board.check is not None
    assert ask(coordinator.url, board) == 204


def test_it_takes_certificates_that_are_valid_then_and_not_by_the_system_clock(tmp_path: Path) -> None:
    later = time.time() + 5 * YEAR_S
    with served(tmp_path / "coordinator", address=ADDRESS, now=later) as running:
        assert ask(running.url, trust(running.ca_pem, tmp_path, proved=later + 60)) == 204
        with pytest.raises(CoordinatorIdentityError):
            ask(running.url, coordinator_trust(running.ca_pem, state_dir=tmp_path / "no", system_time=time.time))


def test_it_refuses_a_certificate_that_had_ended_by_the_proved_time(coordinator: Served, tmp_path: Path) -> None:
    board = trust(coordinator.ca_pem, tmp_path, proved=time.time() + 30 * YEAR_S)
    with pytest.raises(CoordinatorIdentityError):
        ask(coordinator.url, board)


def test_it_refuses_another_ca_and_another_name_as_ever(coordinator: Served, tmp_path: Path) -> None:
    stranger = load_or_create_authority(tmp_path / "pki", now=time.time())
    with pytest.raises(CoordinatorIdentityError):
        ask(coordinator.url, trust(stranger.pem, tmp_path, proved=time.time()))
    elsewhere = Wire("127.0.0.44", (ADDRESS, coordinator.wire.port))
    try:
        with pytest.raises(CoordinatorIdentityError):
            ask(f"https://127.0.0.44:{elsewhere.port}", trust(coordinator.ca_pem, tmp_path, proved=time.time()))
    finally:
        elsewhere.close()


def test_a_right_clock_leaves_the_judgement_to_openssl(coordinator: Served, tmp_path: Path) -> None:
    ours = trust(coordinator.ca_pem, tmp_path, proved=time.time() - 60, system=time.time() + 60)
    assert ours.check is None
    assert ours.context.verify_flags == ssl.create_default_context().verify_flags
    assert ask(coordinator.url, ours) == 204
