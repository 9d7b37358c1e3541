"""Debian's mosquitto_pub and mosquitto_sub as devices: events, wills, messages, retain, QoS 2, provisioning."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud.localhub.enrollments import Kind
from cloud.localhub.messages import parse_message
from tests.cloud.localhub.support import Authority, eventually, hub_here

_ADDRESS = "127.0.0.96"
_CA = {"authentication": {"type": "certificateAuthority"}}
_CONTEXT = "devices/press-07"

pytestmark = pytest.mark.skipif(
    shutil.which("mosquitto_pub") is None and "CI" not in os.environ, reason="mosquitto-clients is not installed"
)


@asynccontextmanager
async def _hub(folder: Path) -> AsyncIterator[tuple[Any, list[str]]]:
    """A hub with the device press-07, and how its mosquitto clients connect."""
    async with hub_here(folder, _ADDRESS) as (live, authority):
        await live.hub.put_identity("press-07", _CA, etag=None)
        username = f"{_ADDRESS}/press-07/?api-version=2021-04-12"
        yield live, _connecting(authority, live.mqtt_port, "press-07", username)


def _connecting(authority: Authority, port: int, client_id: str, username: str) -> list[str]:
    own = authority.issue(client_id)
    tls = ["--cafile", str(authority.ca_file), "--cert", str(own.certificate_file), "--key", str(own.key_file)]
    return ["-h", _ADDRESS, "-p", str(port), "-V", "mqttv311", "-i", client_id, "-u", username, *tls]


async def _run(program: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a client, which must end by itself."""
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def _events(live: Any, count: int) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            found = await live.hub.events.read(after=0, limit=100, wait_s=5)
    return found


def test_it_publishes_with_qos_0_and_1_and_a_retained_event_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with _hub(tmp_path) as (live, connecting):
            topic = f"{_CONTEXT}/messages/events/alert=true&%24.ct=text%2Fplain"
            for qos, more in (("0", []), ("1", []), ("1", ["-r"])):
                code, output = await _run("mosquitto_pub", *connecting, "-t", topic, "-m", qos, "-q", qos, *more)
                assert (code, output) == (0, "")
            events = await _events(live, 3)
            properties = {"alert": "true", "$.ct": "text/plain"}
            assert [event.body for event in events] == [b"0", b"1", b"1"]
            assert [event.properties for event in events] == [properties] * 2 + [properties | {"mqtt-retain": "true"}]

    asyncio.run(story())


def test_a_publish_with_qos_2_ends_its_connection(tmp_path: Path) -> None:
    async def story() -> None:
        async with _hub(tmp_path) as (live, connecting):
            topic = f"{_CONTEXT}/messages/events/"
            publishing = asyncio.ensure_future(_run("mosquitto_pub", *connecting, "-t", topic, "-m", "x", "-q", "2"))
            # The client tries again and again; that it was here and is gone is what counts.
            await eventually(lambda: live.hub.presence("press-07").changed != "0001-01-01T00:00:00Z", timeout_s=30)
            await eventually(lambda: not live.hub.presence("press-07").connected, timeout_s=30)
            assert await live.hub.events.read(after=0, limit=10, wait_s=0) == []
            publishing.cancel()

    asyncio.run(story())


def test_its_will_becomes_an_event_when_it_is_killed(tmp_path: Path) -> None:
    async def story() -> None:
        async with _hub(tmp_path) as (live, connecting):
            will = ["--will-topic", f"{_CONTEXT}/messages/events/a=b", "--will-payload", "gone"]
            filters = ["-t", f"{_CONTEXT}/messages/devicebound/#"]
            process = await asyncio.create_subprocess_exec("mosquitto_sub", *connecting, *filters, *will)
            await eventually(lambda: live.hub.presence("press-07").connected, timeout_s=30)
            process.kill()
            await process.wait()
            (event,) = await _events(live, 1)
            assert (event.body, event.properties) == (b"gone", {"a": "b", "iothub-MessageType": "Will"})

    asyncio.run(story())


def test_it_receives_what_was_queued_while_its_kept_session_was_away(tmp_path: Path) -> None:
    async def story() -> None:
        async with _hub(tmp_path) as (live, connecting):
            kept = [*connecting, "-c", "-q", "1", "-t", f"{_CONTEXT}/messages/devicebound/#"]
            code, _ = await _run("mosquitto_sub", *kept, "-E")
            assert code == 0
            for number in range(3):
                headers = {"iothub-messageid": f"id {number}"}
                message = parse_message("press-07", headers, b"%d" % number, now=live.hub.time(), life_s=60.0)
                await live.hub.mailbox.send(message)
            code, output = await _run("mosquitto_sub", *kept, "-C", "3", "-F", "%t %q %p")
            base = f"{_CONTEXT}/messages/devicebound/%24.to=%2Fdevices%2Fpress-07%2Fmessages%2Fdevicebound"
            assert output.splitlines() == [f"{base}&%24.mid=id%20{n} 1 {n}" for n in range(3)]
            assert code == 0
            # It leaves with its third message, before it acknowledges that one; the others do not come again.
            await eventually(lambda: not live.hub.presence("press-07").connected)
            assert len(await live.hub.mailbox.pending("press-07")) <= 1

    asyncio.run(story())


def test_a_filter_that_iot_hub_does_not_know_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with _hub(tmp_path) as (_, connecting):
            for topic in ("#", "devices/press-08/messages/devicebound/#", "devices/+/messages/devicebound/#"):
                _, output = await _run("mosquitto_sub", *connecting, "-t", topic, "-C", "1")
                assert "denied" in output

    asyncio.run(story())


def test_it_registers_at_the_provisioning_service(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            signing = {"signingCertificates": {"primary": {"certificate": authority.ca_pem}}}
            body = {"attestation": {"type": "x509", "x509": signing}}
            await live.hub.enrolling.put(Kind.GROUP, "presses", body, etag=None)
            username = f"{await live.hub.enrolling.id_scope()}/registrations/press-09/api-version=2019-03-31"
            connecting = _connecting(authority, live.mqtt_port, "press-09", username)
            topic, asked = "$dps/registrations/PUT/iotdps-register/?$rid=1", '{"registrationId": "press-09"}'
            code, output = await _run("mosquitto_pub", *connecting, "-t", topic, "-m", asked, "-q", "1")
            assert (code, output) == (0, "")
            assert (await live.hub.enrolling.get_registration("press-09"))["deviceId"] == "press-09"

    asyncio.run(story())
