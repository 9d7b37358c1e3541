"""One AMQP connection without sockets: what a client may do, and that nothing it sends does more than end it."""

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.localhub.amqp.connection import CBS, Close, Connection, MaySend, OpenReader, ReaderGone, Request
from cloud.localhub.amqp.frames import PROTOCOL_HEADER, SASL_HEADER, Frame, Splitter, encode_frame
from cloud.localhub.amqp.messages import answer, decode_message
from cloud.localhub.amqp.types import Described, Symbol, Uint, Ulong, Value, encode

_ADDRESS = "amqps://hub/events/ConsumerGroups/$Default/Partitions/0"
_OPENING = b"".join(
    (
        SASL_HEADER,
        encode_frame(0, "sasl_init", mechanism=Symbol("ANONYMOUS")),
        PROTOCOL_HEADER,
        encode_frame(0, "open", container_id="test", max_frame_size=Uint(1_000), idle_time_out=Uint(60_000)),
        encode_frame(0, "begin", next_outgoing_id=Uint(0), incoming_window=Uint(10), outgoing_window=Uint(10)),
    )
)


def _source(address: str, **filters: str) -> Described:
    chosen: dict[Value, Value] = {Symbol("apache.org:selector-filter:string"): text for text in filters.values()}
    return Described(Ulong(0x28), [address, None, None, None, None, None, None, chosen])


def _attach(handle: int, *, reads: bool, address: str, **filters: str) -> bytes:
    target = Described(Ulong(0x29), [address])
    source = _source(address, **filters)
    return encode_frame(
        0, "attach", name=f"link-{handle}", handle=Uint(handle), role=reads, source=source, target=target
    )


def _credit(handle: int, credit: int, *, window: int = 10) -> bytes:
    return encode_frame(
        0,
        "flow",
        next_incoming_id=Uint(1),
        incoming_window=Uint(window),
        next_outgoing_id=Uint(0),
        outgoing_window=Uint(10),
        handle=Uint(handle),
        delivery_count=Uint(0),
        link_credit=Uint(credit),
    )


def _frames(connection: Connection) -> list[Frame]:
    return [item for item in Splitter().feed(connection.take()) if isinstance(item, Frame)]


def _opened() -> Connection:
    connection = Connection("hub")
    assert connection.receive(_OPENING) == []
    assert [frame.name for frame in _frames(connection)] == ["sasl_mechanisms", "sasl_outcome", "open", "begin"]
    assert connection.idle_s == 60
    return connection


def _reader(connection: Connection) -> Any:
    (effect,) = connection.receive(_attach(3, reads=True, address=_ADDRESS, by="amqp.annotation.x-opt-offset > '7'"))
    assert isinstance(effect, OpenReader)
    return effect.link


def test_a_request_on_a_node_is_answered_on_the_link_back_with_its_id() -> None:
    connection = _opened()
    links = _attach(0, reads=True, address=CBS) + _attach(1, reads=False, address=CBS) + _credit(0, 5)
    assert connection.receive(links) == []
    assert [frame.name for frame in _frames(connection)] == ["attach", "attach", "flow"]
    asked = uuid.uuid4()
    message = encode(Described(Ulong(0x73), [asked])) + encode(Described(Ulong(0x77), "token"))
    (request,) = connection.receive(encode_frame(0, "transfer", message, handle=Uint(1), delivery_id=Uint(9)))
    assert isinstance(request, Request)
    assert (request.node, request.message.value) == (CBS, "token")
    connection.answer(request, answer(request.message, status=202, description="Accepted"))
    disposition, flow, transfer = _frames(connection)
    assert (disposition["first"], disposition["settled"], flow["link_credit"]) == (9, True, 100)
    answered = decode_message(transfer.payload)
    assert (answered.properties["correlation_id"], answered.application["status-code"]) == (asked, 202)


def test_a_reader_gets_no_more_than_its_credit_and_its_window_allow() -> None:
    connection = _opened()
    link = _reader(connection)
    assert (link.address, link.selector) == (_ADDRESS, "amqp.annotation.x-opt-offset > '7'")
    connection.accept(link)
    assert not connection.send(link, b"too early")
    assert connection.receive(_credit(3, 2)) == [MaySend(link)]
    assert [connection.send(link, b"x") for _ in range(3)] == [True, True, False]
    assert connection.receive(_credit(3, 100, window=1)) == [MaySend(link)]
    assert not connection.send(link, bytes(5_000)), "it takes several frames, and the window has room for none"
    assert [frame["delivery_id"] for frame in _frames(connection) if frame.name == "transfer"] == [1, 2]


def test_a_message_above_the_clients_frame_comes_in_parts() -> None:
    connection = _opened()
    link = _reader(connection)
    connection.accept(link)
    connection.receive(_credit(3, 1))
    assert connection.send(link, bytes(range(256)) * 10)
    transfers = [frame for frame in _frames(connection) if frame.name == "transfer"]
    assert [frame["more"] for frame in transfers] == [True, True, False]
    assert b"".join(frame.payload for frame in transfers) == bytes(range(256)) * 10


def test_a_link_that_is_refused_says_why_and_one_that_ends_is_gone() -> None:
    connection = _opened()
    link = _reader(connection)
    connection.refuse(link, "amqp:not-found", "no such group")
    attach, detach = _frames(connection)
    assert (attach.name, detach["closed"], detach["error"].value[0]) == ("attach", True, "amqp:not-found")
    link = _reader(connection)
    connection.accept(link)
    assert connection.receive(encode_frame(0, "detach", handle=Uint(3), closed=True)) == [ReaderGone(link)]
    link = _reader(connection)
    connection.accept(link)
    assert connection.receive(encode_frame(0, "end")) == [ReaderGone(link)]
    assert not connection.send(link, b"nobody")


@pytest.mark.parametrize(
    "wrong",
    [
        b"HTTP/1.1 GET /",
        encode_frame(0, "transfer", handle=Uint(1)),
        encode_frame(5, "attach"),
        encode_frame(0, "attach", name="a", handle="b", role=True),
        encode_frame(0, "begin", incoming_window=Uint(1)),
        (70_000).to_bytes(4, "big") + bytes(10),
    ],
)
def test_what_makes_no_sense_ends_the_connection_with_the_reason(wrong: bytes) -> None:
    connection = _opened()
    effects = connection.receive(wrong)
    assert isinstance(effects[-1], Close)
    assert _frames(connection)[-1].name == "close"


@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
def test_arbitrary_bytes_never_raise(parts: list[bytes], opens: bool) -> None:
    connection = Connection("hub")
    if opens:
        connection.receive(_OPENING)
    for part in parts:
        connection.receive(part)
        connection.receive(len(part + bytes(8)).to_bytes(4, "big") + b"\x02\x00\x00\x00" + part)
