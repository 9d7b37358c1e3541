"""HTTP/1.1 for the endpoint: one connection's bytes become requests, each answer goes out in one write.

The parser is llhttp, strict, by way of httptools. A general server (uvicorn) costs as much for a request as the model
does, mostly in tasks and dictionaries that an endpoint with one handler has no use for.

Bounds: the head, the body, the bodies of all connections together, requests sent ahead, the time for each part, and
the time that a client takes to read its answer.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Protocol, cast

import httptools

from edge_agent.serving.errors import (
    BodyTooLargeError,
    BusyError,
    HeadTooLargeError,
    InvalidHttpError,
    RequestTimeoutError,
    ServingError,
)

HEAD_BYTES_MAX = 16 * 1024
BODIES_BYTES_MAX = 64 * 1024 * 1024
"""Bodies of all connections together, from their first byte to their answer; beyond it the answer is 503."""
SENT_AHEAD_MAX = 64
"""Requests of one connection that wait for the answer to an earlier one."""
HEAD_S, BODY_S, IDLE_S, WRITE_S, LINGER_S = 10.0, 30.0, 75.0, 30.0, 2.0
"""Time for a head, for a body, between two requests, for a client to take its answer, and to hear of a refusal."""
_INFERENCE_HEADER = b"inference-header-content-length"


@dataclass(slots=True)
class Request:
    """One whole request, with the headers that the endpoint looks at."""

    method: str
    target: bytes
    """Path and query, as sent."""
    body: bytes
    json_bytes: bytes | None
    """Value of Inference-Header-Content-Length."""
    encoding: bytes
    """Value of Content-Encoding."""
    keeps_alive: bool


class Answer(Protocol):
    """Sends the one answer to a request; to be called once, now or later."""

    def __call__(self, status: int, body: bytes, *, json_bytes: int | None = None) -> None: ...


class Application(Protocol):
    """What answers requests."""

    def respond(self, request: Request, answer: Answer) -> None: ...
    def refuse(self, error: ServingError, answer: Answer) -> None: ...


class Connections:
    """All connections of one endpoint, and what they share.

    Args:
        app: Answers.
        body_bytes_max: Largest body of one request.
        connections_max: Further ones are answered with 503 and closed.
        clock: Monotonic seconds.
    """

    def __init__(
        self, app: Application, *, body_bytes_max: int, connections_max: int, clock: Callable[[], float]
    ) -> None:
        self.app = app
        self.body_bytes_max = body_bytes_max
        self.clock = clock
        self.bodies_bytes = 0
        self._connections_max = connections_max
        self._open: set[Connection] = set()
        self._news = asyncio.Event()

    def __call__(self) -> "Connection":
        return Connection(self)

    async def all_closed(self) -> None:
        """Returns when no connection is open."""
        while self._open:
            self._news.clear()
            await self._news.wait()

    def opened(self, connection: "Connection") -> bool:
        """Notes a connection; False where there are too many."""
        self._open.add(connection)
        if len(self._open) > 2 * self._connections_max:
            connection.abort()  # Even the refusals are too many.
        return len(self._open) <= self._connections_max

    def closed(self, connection: "Connection") -> None:
        self._open.discard(connection)
        self._news.set()

    def expire(self) -> None:
        """Ends the connections whose time is over; to be called every second or so."""
        now = self.clock()
        for connection in [one for one in self._open if one.deadline < now]:
            connection.expire()

    def finish(self) -> None:
        """Ends the connections that wait for nothing, and each other one after its answers."""
        for connection in list(self._open):
            connection.finish()

    def abort(self) -> None:
        """Ends what is left."""
        for connection in list(self._open):
            connection.abort()


class Connection(asyncio.Protocol):
    """One connection. The methods named `on_...` are the parser's."""

    def __init__(self, home: Connections) -> None:
        self._home = home
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request | ServingError] = deque()
        self._current: Request | None = None
        self._is_busy = self._is_pumping = self._is_last = self._is_refused = False
        self._can_write = self._is_reading = True
        self._surplus_bytes = self._held_bytes = 0
        self.deadline = home.clock() + HEAD_S
        self.on_message_begin()

    # The event loop's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's do not derive from it
        if not self._home.opened(self):
            self._end_with(BusyError("Expected fewer connections at once, got one too many", hint="Try again later."))
            self._pump()

    def data_received(self, data: bytes) -> None:
        if self._is_last:
            return
        if not self._surplus_bytes and not self._is_busy and not self._is_in_message:
            self.deadline = self._home.clock() + HEAD_S
        self._surplus_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._is_last = True  # The request is answered like any other; what follows it is not HTTP.
        except httptools.HttpParserError as error:
            self._end_with(InvalidHttpError(f"Expected a request of HTTP/1.1, got: {str(error)[:200]}"))
        if self._surplus_bytes > HEAD_BYTES_MAX + self._body_bytes:
            self._end_with(HeadTooLargeError(f"Expected at most {HEAD_BYTES_MAX} bytes before the body, got more"))
        self._pump()

    def eof_received(self) -> bool:
        """A client may close its side after the request and still read the answer."""
        self._is_last = True
        return self._is_busy or bool(self._waiting)

    def pause_writing(self) -> None:
        self._can_write = False
        self.deadline = self._home.clock() + WRITE_S

    def resume_writing(self) -> None:
        self._can_write = True
        self.deadline = self._home.clock() + IDLE_S
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_last = True
        self._waiting.clear()
        self._let_go(self._held_bytes)
        self._home.closed(self)

    # The parser's calls

    def on_message_begin(self) -> None:
        self._target = b""
        self._json_bytes: bytes | None = None
        self._encoding = b""
        self._body: bytes | bytearray = b""
        self._body_bytes = 0
        self._expects_continue = False
        self._is_in_message = False
        self._is_in_body = False

    def on_url(self, url: bytes) -> None:
        self._is_in_message = True
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_body:
            return  # a trailer
        match name.lower():
            case b"inference-header-content-length":
                self._json_bytes = value
            case b"content-encoding":
                self._encoding = value
            case b"content-length" if int(value) > self._home.body_bytes_max:  # digits, by the parser
                self._end_with(self._too_large(value.decode()))
            case b"expect":
                self._expects_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        self._is_in_body = True
        if not self._is_busy:
            self.deadline = self._home.clock() + BODY_S
        if self._expects_continue and not self._is_last and not self._is_busy:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        if self._is_last:
            return
        size = len(part)
        self._surplus_bytes -= size
        self._body_bytes += size
        self._held_bytes += size
        self._home.bodies_bytes += size
        if self._body_bytes > self._home.body_bytes_max:
            self._end_with(self._too_large("more"))
        elif self._home.bodies_bytes > BODIES_BYTES_MAX:
            self._end_with(
                BusyError("Expected fewer large requests at once, got one too many", hint="Try again later.")
            )
        elif not self._body:
            self._body = part
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += part

    def on_message_complete(self) -> None:
        if self._is_last:
            return
        if len(self._waiting) >= SENT_AHEAD_MAX:
            self._end_with(InvalidHttpError(f"Expected at most {SENT_AHEAD_MAX} requests sent ahead, got more"))
            return
        method, keeps_alive = self._parser.get_method().decode(), self._parser.should_keep_alive()
        body, self._body, self._body_bytes = bytes(self._body), b"", 0
        self._waiting.append(Request(method, self._target, body, self._json_bytes, self._encoding, keeps_alive))
        self._surplus_bytes = 0
        self._is_in_message = False

    # Answers

    def finish(self) -> None:
        """Ends the connection after the answers it owes."""
        self._is_last = True
        self._close_if_done()

    def abort(self) -> None:
        self._transport.abort()

    def expire(self) -> None:
        """Ends the connection because its time is over: with an answer where a request has begun."""
        if self._can_write and self._is_in_message and not self._is_last:
            self._end_with(RequestTimeoutError("Expected the whole request in time, got a part"))
            self._pump()
        else:
            self._transport.abort()

    def _pump(self) -> None:
        """Answers what waits, in order, one at a time."""
        if self._is_pumping:
            return
        self._is_pumping = True
        try:
            while self._waiting and self._can_write and not self._is_busy:
                self._is_busy = True
                self.deadline = float("inf")
                self._respond(self._waiting.popleft())
        finally:
            self._is_pumping = False
        self._pace_reading()
        self._close_if_done()

    def _respond(self, request: Request | ServingError) -> None:
        if isinstance(request, ServingError):
            self._current = None
            self._home.app.refuse(request, self._answer)
        else:
            self._current = request
            self._home.app.respond(request, self._answer)

    def _answer(self, status: int, body: bytes, *, json_bytes: int | None = None) -> None:
        request, self._current = self._current, None
        self._is_busy = False
        if self._transport.is_closing():
            return
        is_last = request is None or not request.keeps_alive or (self._is_last and not self._waiting)
        head = _head(status, len(body), json_bytes, is_last)
        self.deadline = self._home.clock() + (BODY_S if self._is_in_message else IDLE_S)
        self._transport.write(head if request is not None and request.method == "HEAD" else head + body)
        if request is not None:
            self._let_go(len(request.body))
        if is_last:
            self._is_last = True
            self._waiting.clear()
        if not self._is_pumping:
            self._pump()

    def _end_with(self, error: ServingError) -> None:
        """Refuses, as the last answer of this connection; nothing that comes after it is looked at."""
        if not self._is_last:
            self._is_last = self._is_refused = True
            self._let_go(self._body_bytes)
            self._body, self._body_bytes = b"", 0
            self._waiting.append(error)

    def _too_large(self, got: str) -> BodyTooLargeError:
        return BodyTooLargeError(f"Expected a body of at most {self._home.body_bytes_max} bytes, got {got}")

    def _let_go(self, size: int) -> None:
        self._held_bytes -= size
        self._home.bodies_bytes -= size

    def _pace_reading(self) -> None:
        """Reads no further while requests wait here: the sender's own buffers are the better place for them."""
        if self._transport.is_closing():
            return
        if bool(self._waiting) == self._is_reading:
            self._is_reading = not self._is_reading
            (self._transport.resume_reading if self._is_reading else self._transport.pause_reading)()

    def _close_if_done(self) -> None:
        if not self._is_last or self._is_busy or self._waiting or self._transport.is_closing():
            return
        if self._is_refused:
            # Closed at once, with something unread, TCP would take the refusal back before the client has read it.
            self._transport.write_eof()
            self.deadline = self._home.clock() + LINGER_S
        else:
            self._transport.close()
            self.deadline = self._home.clock() + WRITE_S


@lru_cache(maxsize=1024)
def _head(status: int, body_bytes: int, json_bytes: int | None, is_last: bool) -> bytes:
    kind = "application/json" if json_bytes is None else "application/octet-stream"
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"content-type: {kind}", f"content-length: {body_bytes}"]
    if json_bytes is not None:
        lines.append(f"{_INFERENCE_HEADER.decode()}: {json_bytes}")
    if is_last:
        lines.append("connection: close")
    return "\r\n".join([*lines, "", ""]).encode()
