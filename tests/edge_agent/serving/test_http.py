"""The endpoint's HTTP under clients that are slow, greedy, ahead of themselves or not speaking HTTP at all."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.serving import http, server
from edge_agent.serving.app import InferenceApp
from edge_agent.serving.http import HEAD_BYTES_MAX, SENT_AHEAD_MAX, Connections
from edge_agent.serving.observer import Observer
from edge_agent.serving.protocol import Bounds
from edge_agent.serving.session import load
from edge_agent.serving.slot import ServingSlot
from tests.edge_agent.serving.test_endpoint import INFER, Bench, bench, json_body
from tests.edge_agent.support import images, weights, write_release

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n"


def run(story: Callable[[Bench], Awaitable[None]], bounds: Bounds | None = None) -> None:
    async def tell() -> None:
        async with bench(bounds) as opened:
            await story(opened)

    asyncio.run(tell())


async def talk(bench: Bench, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Everything the endpoint says to these bytes, until it ends the connection or 10 seconds are over."""
    reader, writer = await asyncio.open_connection(bench.endpoint.host, bench.endpoint.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        return await asyncio.wait_for(reader.read(-1), 10)
    finally:
        writer.close()


def test_requests_sent_ahead_are_answered_in_order(tmp_path: Path) -> None:
    release = load(tmp_path, write_release(tmp_path))
    sizes = [1, 200, 2, 40, 1]  # large ones run in a thread, and still keep their place

    async def story(bench: Bench) -> None:
        bench.slot.swap(release)
        client = await bench.client()
        for size in sizes:
            body = json_body(images(size))
            client.send(f"POST {INFER} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        client.send(LIVE)
        shapes = [json.loads((await client.answer())[2])["outputs"][0]["shape"] for _ in sizes]
        assert shapes == [[size, 10] for size in sizes]
        assert json.loads((await client.answer())[2]) == {"live": True}

    run(story)


def test_requests_that_arrive_together_get_each_its_own_answer(tmp_path: Path) -> None:
    release = load(tmp_path, write_release(tmp_path))
    inputs = images(64)

    async def story(bench: Bench) -> None:
        bench.slot.swap(release)

        async def ask(number: int) -> None:
            client = await bench.client()
            for _ in range(5):
                _, _, body = await client.ask("POST", INFER, json_body(inputs[number : number + 1]))
                data = np.array(json.loads(body)["outputs"][0]["data"])
                np.testing.assert_allclose(data, (inputs[number : number + 1] @ weights())[0], rtol=1e-4)

        await asyncio.gather(*(ask(number) for number in range(64)))
        assert bench.observer.take_window().examples == 64 * 5

    run(story)


@pytest.mark.parametrize("step", [1, 7, 64])
def test_a_request_may_come_in_pieces_of_any_size(tmp_path: Path, step: int) -> None:
    release = load(tmp_path, write_release(tmp_path))
    body = json_body(images(1))
    raw = f"POST {INFER} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    async def story(bench: Bench) -> None:
        bench.slot.swap(release)
        client = await bench.client()
        for start in range(0, len(raw), step):
            client.send(raw[start : start + step])
            await asyncio.sleep(0)
        assert (await client.answer())[0] == 200

    run(story)


def test_keeps_the_connection_or_closes_it_as_the_client_asks() -> None:
    async def story(bench: Bench) -> None:
        assert (await talk(bench, LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))).count(
            b"HTTP/1.1 200"
        ) == 1
        old = await talk(bench, b"GET /v2 HTTP/1.0\r\n\r\n")
        assert b"connection: close" in old
        head = await talk(bench, b"HEAD /v2 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        assert head.endswith(b"\r\n\r\n")
        upgrade = await talk(bench, b"GET /v2 HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert upgrade.startswith(b"HTTP/1.1 200")

    run(story)


def test_says_that_a_large_body_may_come() -> None:
    async def story(bench: Bench) -> None:
        client = await bench.client()
        client.send(f"POST {INFER} HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n".encode())
        assert await client.line() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"{}")
        assert (await client.answer())[0] == 503

    run(story)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /" + b"x" * HEAD_BYTES_MAX, 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * HEAD_BYTES_MAX, 431),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * HEAD_BYTES_MAX, 431),
        (LIVE * (SENT_AHEAD_MAX * 40), 400),
    ],
)
def test_what_is_not_a_bounded_request_is_refused_and_the_connection_ends(raw: bytes, status: int) -> None:
    async def story(bench: Bench) -> None:
        said = await talk(bench, raw)
        assert f"HTTP/1.1 {status} ".encode() in said
        last = said[said.rindex(b"HTTP/1.1 ") :]
        assert last.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"connection: close" in last
        assert (await (await bench.client()).ask("GET", "/v2"))[0] == 200

    run(story)


def test_slow_clients_are_cut_off_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_S", "BODY_S", "IDLE_S"):
        monkeypatch.setattr(http, name, 0.2)
    monkeypatch.setattr(server, "WATCH_S", 0.05)

    async def story(bench: Bench) -> None:
        started = time.monotonic()
        silent, head, body, idle = await asyncio.gather(
            talk(bench),
            talk(bench, *[b"GET /"] + [b"x"] * 30, pause_s=0.02),
            talk(bench, b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n", *[b"x"] * 30, pause_s=0.02),
            talk(bench, LIVE),
        )
        assert silent == b""
        assert head.startswith(b"HTTP/1.1 408 ")
        assert body.startswith(b"HTTP/1.1 408 ")
        assert idle.startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - started < 8

    run(story)


def test_a_client_that_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "WRITE_S", 0.2)
    monkeypatch.setattr(server, "WATCH_S", 0.05)

    async def story(bench: Bench) -> None:
        _, writer = await asyncio.open_connection(bench.endpoint.host, bench.endpoint.port)

        async def ask_without_reading() -> None:
            while True:
                writer.write(b"GET /v2/nothing HTTP/1.1\r\nHost: t\r\n\r\n" * 50)
                await writer.drain()
                await asyncio.sleep(0)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(ask_without_reading(), 20)
        writer.close()

    run(story)


def test_connections_beyond_the_bound_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 3)

    async def story(bench: Bench) -> None:
        inside = [await bench.client() for _ in range(3)]
        for client in inside:
            assert (await client.ask("GET", "/v2"))[0] == 200
        assert b'"code":"busy"' in await talk(bench)
        assert (await inside[0].ask("GET", "/v2"))[0] == 200

    run(story)


def test_bodies_of_all_connections_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODIES_BYTES_MAX", 10_000)
    head = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9000\r\n\r\n"

    async def story(bench: Bench) -> None:
        first = await bench.client()
        first.send(head + b"x" * 8000)
        await asyncio.sleep(0.1)
        assert b'"code":"busy"' in await talk(bench, head + b"x" * 8000)
        first.send(b"x" * 1000)
        assert (await first.answer())[0] == 405
        last = await bench.client()
        last.send(head + b"x" * 9000)
        assert (await last.answer())[0] == 405

    run(story)


class Recorder(asyncio.Transport):
    """The other side of a connection without a socket: what was written, and whether it was ended."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_ended = False
        self.reads = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def write_eof(self) -> None:
        self.is_ended = True

    def close(self) -> None:
        self.is_ended = True

    def abort(self) -> None:
        self.is_ended = True

    def is_closing(self) -> bool:
        return self.is_ended

    def pause_reading(self) -> None:
        assert self.reads
        self.reads = False

    def resume_reading(self) -> None:
        assert not self.reads
        self.reads = True


pieces = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            LIVE,
            b"GET /v2 HTTP/1.1\r\n",
            b"POST /v2/models/x/infer HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            b"Transfer-Encoding: chunked\r\n",
            b"Content-Length: 5\r\n",
            b"5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"\r\n",
            b"Expect: 100-continue\r\n\r\n",
        ]
    ),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(pieces, max_size=12))
def test_any_bytes_get_whole_answers_or_none_and_nothing_is_held_after(parts: list[bytes]) -> None:
    app = InferenceApp(slot=ServingSlot(), observer=Observer(), version="1", bounds=Bounds(body_bytes_max=64))
    home = Connections(app, body_bytes_max=64, connections_max=2, clock=lambda: 0.0)
    connection, transport = home(), Recorder()
    connection.connection_made(transport)
    for part in parts:
        if not transport.is_ended:
            connection.data_received(part)
    connection.connection_lost(None)
    assert home.bodies_bytes == 0
    rest = transport.written.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    while rest:
        head, found, rest = rest.partition(b"\r\n\r\n")
        assert found
        assert head.startswith(b"HTTP/1.1 ")
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        json.loads(rest[:length])
        rest = rest[length:]
