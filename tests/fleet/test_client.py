"""What leaves the client is a shape or one of our errors; waiting has bounds."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from fleet import calls
from fleet.client import ANSWER_BYTES_MAX, AsyncCoordinatorClient, CoordinatorClient
from fleet.errors import (
    ApiError,
    CoordinatorUnreachableError,
    JobFailedError,
    ProfileError,
    UnexpectedAnswerError,
    WaitTimedOutError,
)
from fleet.waiting import Patience, wait_for, wait_for_campaign, wait_for_job
from shared.lifecycles import JobState
from tests.fleet import scenario
from tests.fleet.told import TOKEN, ToldFleet

URL = "https://coordinator.test"


def client_of(told: ToldFleet, *, token: str = TOKEN) -> CoordinatorClient:
    return CoordinatorClient(URL, token=token, transport=told.transport())


def answering(answer: Callable[[httpx.Request], httpx.Response]) -> CoordinatorClient:
    return CoordinatorClient(URL, token=TOKEN, transport=httpx.MockTransport(answer))


def test_both_clients_get_the_same_value_for_a_call() -> None:
    told = ToldFleet()
    other = AsyncCoordinatorClient(URL, token=TOKEN, transport=told.async_transport())
    with client_of(told) as client:
        assert client.send(calls.device("wrist-01")) == asyncio.run(other.send(calls.device("wrist-01")))


def test_a_refusal_keeps_code_message_and_hint() -> None:
    with client_of(ToldFleet()) as client, pytest.raises(ApiError) as caught:
        client.send(calls.device("nobody"))
    assert (caught.value.status, caught.value.api_code, caught.value.hint) == (404, "not_found", "Look at the list.")


def test_a_wrong_token_is_refused() -> None:
    with client_of(ToldFleet(), token="another") as client, pytest.raises(ApiError) as caught:
        client.send(calls.devices())
    assert caught.value.status == 401
    assert "another" not in str(caught.value).replace("another one", "")


def test_an_id_is_one_segment_of_the_path_whatever_it_holds() -> None:
    assert calls.device("../models?x=1#y").path == "/v1/devices/..%2Fmodels%3Fx%3D1%23y"


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, text="<html>hello</html>"),
        httpx.Response(200, json={"device_id": 3}),
        httpx.Response(502, text="bad gateway"),
        httpx.Response(302, headers={"Location": "https://elsewhere.test"}),
    ],
    ids=["text", "another shape", "a proxy", "a redirect"],
)
def test_what_is_not_the_api_is_said_to_be_unexpected(response: httpx.Response) -> None:
    with answering(lambda _: response) as client, pytest.raises(UnexpectedAnswerError):
        client.send(calls.device("wrist-01"))


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 1_000_000

    with (
        answering(lambda _: httpx.Response(200, content=endless())) as client,
        pytest.raises(UnexpectedAnswerError, match=str(ANSWER_BYTES_MAX)),
    ):
        client.send(calls.devices())


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError])
def test_every_failure_of_the_line_is_one_error(error: type[httpx.TransportError]) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error("broken")

    with answering(fail) as client, pytest.raises(CoordinatorUnreachableError):
        client.send(calls.devices())


@pytest.mark.parametrize("url", ["ftp://x", "coordinator:8444", "", "https://", "http://10.0.0.5:8444", "https://[::1"])
def test_refuses_a_url_that_is_none_or_would_show_the_token(url: str) -> None:
    with pytest.raises(ProfileError):
        CoordinatorClient(url, token=TOKEN)


def test_a_ca_file_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(ProfileError, match=name):
            CoordinatorClient(URL, token=TOKEN, ca_file=tmp_path / name)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self, on_sleep: Callable[[int], None] = lambda _: None) -> None:
        self.time, self.sleeps, self._on_sleep = 0.0, 0, on_sleep

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.sleeps += 1
        self._on_sleep(self.sleeps)

    def patience(self, *, timeout_s: float = 100, away_s_max: float = 10) -> Patience:
        return Patience(
            timeout_s=timeout_s, away_s_max=away_s_max, poll_s=1, monotonic=lambda: self.time, sleep=self.sleep
        )


def test_waiting_outlives_a_restart_of_the_coordinator() -> None:
    told = ToldFleet()

    def on_sleep(times: int) -> None:
        told.is_away = times < 5
        if times == 7:
            told.campaigns = [scenario.campaign(rounds_done=8, state=JobState.DONE)]

    with client_of(told) as client:
        done = wait_for_campaign(client, scenario.CAMPAIGN, patience=Clock(on_sleep).patience())
    assert done.rounds_done == 8


def test_waiting_gives_up_when_the_coordinator_stays_away() -> None:
    told = ToldFleet()
    told.is_away = True
    clock = Clock()
    with client_of(told) as client, pytest.raises(CoordinatorUnreachableError):
        wait_for(client, calls.devices(), is_over=lambda _: False, patience=clock.patience())
    assert 10 <= clock.time <= 12


def test_waiting_ends_at_its_time() -> None:
    with client_of(ToldFleet()) as client, pytest.raises(WaitTimedOutError):
        wait_for_campaign(client, scenario.CAMPAIGN, patience=Clock().patience(timeout_s=5))


def test_a_failed_job_ends_the_wait_with_its_own_words() -> None:
    told = ToldFleet()
    told.jobs = [
        told.jobs[0].model_copy(
            update={"state": JobState.FAILED, "error": "Expected 2 updates, got 1", "hint": "Wait."}
        )
    ]
    with client_of(told) as client, pytest.raises(JobFailedError, match="Expected 2 updates") as caught:
        wait_for_job(client, told.jobs[0].job_id, patience=Clock().patience())
    assert caught.value.hint == "Wait."
