"""One AMQP connection of a consumer, decided without I/O: bytes in, effects out, and bytes to send in `take`.

    header -> SASL -> header -> open -> sessions (begin) -> links (attach) -> ... -> close

A client asks on the nodes `$cbs` and `$management`, with a link there and one back, and reads events on links whose
source is a partition. What needs the hub (tokens, positions, events) is the shell's, which answers with the methods
below. Section numbers are those of part 2 of the standard.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cloud.localhub.amqp.frames import FRAME_BYTES_MAX, PROTOCOL_HEADER, SASL_HEADER, Frame, Splitter, encode_frame
from cloud.localhub.amqp.messages import Message, decode_message
from cloud.localhub.amqp.types import Array, Described, Symbol, Ubyte, Uint, Ulong, Ushort, Value
from cloud.localhub.errors import AmqpError

CBS, MANAGEMENT = "$cbs", "$management"
IDLE_S = 240
"""A client that is silent for longer is closed; it is told half of this (2.4.5)."""
_SESSIONS_MAX, _LINKS_MAX = 16, 255
_WINDOW = 5_000
_REQUEST_CREDIT = 100
_REQUEST_BYTES_MAX = 128 * 1024
_TRANSFER_BYTES = 128
"""More than a transfer takes besides its payload."""
_RECEIVER, _SENDER = True, False
_SETTLED, _FIRST = 1, 0
_EPOCH = Symbol("com.microsoft:epoch")
_SELECTOR = "apache.org:selector-filter:string"


@dataclass(eq=False)
class Link:
    """One direction between a client and a node. `address` is the node's, or the partition's that is read."""

    channel: int
    handle: int
    name: str
    address: str
    source: Value
    target: Value
    selector: str = ""
    epoch: int | None = None
    credit: int = 0
    deliveries: int = 0
    is_open: bool = False
    received: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True)
class Request:
    """A client asks on a node: answer it with `Connection.answer`."""

    node: str
    channel: int
    message: Message


@dataclass(frozen=True)
class OpenReader:
    """A client wants to read the link's address: `accept` or `refuse` it."""

    link: Link


@dataclass(frozen=True)
class MaySend:
    """A link that reads has room again."""

    link: Link


@dataclass(frozen=True)
class ReaderGone:
    """The client does not read the link any more."""

    link: Link


@dataclass(frozen=True)
class Close:
    """The connection is over, once what is to be sent is sent."""

    reason: str


Effect = Request | OpenReader | MaySend | ReaderGone | Close


@dataclass
class _Session:
    next_outgoing: int = 1
    next_delivery: int = 1
    remote_window: int = 0
    links: dict[int, Link] = field(default_factory=dict)
    answers: dict[str, Link] = field(default_factory=dict)
    """Links that bring answers from a node."""


class Connection:
    """The state of one connection."""

    def __init__(self, container_id: str) -> None:
        self.idle_s: float | None = None
        """The client's own patience: it wants to hear something twice in this time."""
        self._container_id = container_id
        self._splitter = Splitter()
        self._out = bytearray()
        self._sessions: dict[int, _Session] = {}
        self._frame_bytes_max = 512
        self._is_open = False

    def receive(self, data: bytes) -> list[Effect]:
        """What these bytes lead to; never raises."""
        effects: list[Effect] = []
        try:
            for item in self._splitter.feed(data):
                effects += self._header(item) if isinstance(item, bytes) else self._frame(item)
        except AmqpError as error:
            self._send(0, "close", error=_error("amqp:decode-error", str(error)))
            effects.append(Close(str(error)))
        return effects

    def take(self) -> bytes:
        """What is to be sent now."""
        data, self._out = bytes(self._out), bytearray()
        return data

    # What the shell says

    def answer(self, request: Request, message: bytes) -> None:
        """Answers on the client's link from the node; without one, or without credit, nobody listens."""
        session = self._sessions.get(request.channel)
        link = session.answers.get(request.node) if session is not None else None
        if link is not None and link.credit:
            self.send(link, message)

    def accept(self, link: Link) -> None:
        """Lets the client read."""
        link.is_open = True
        self._attach_back(link)

    def refuse(self, link: Link, condition: str, text: str) -> None:
        """Ends a link with the reason: one that was never open, or one that must not go on."""
        session = self._sessions.get(link.channel)
        if session is None or session.links.pop(link.handle, None) is None:
            return
        if not link.is_open:
            self._attach_back(link)  # An attach is answered before it is undone (2.6.3).
        link.is_open = False
        self._send(link.channel, "detach", handle=Uint(link.handle), closed=True, error=_error(condition, text))

    def send(self, link: Link, message: bytes) -> bool:
        """Sends a message, settled; False where the client has no room for it now."""
        session = self._sessions.get(link.channel)
        room = self._frame_bytes_max - _TRANSFER_BYTES
        parts = [message[start : start + room] for start in range(0, len(message), room)] or [b""]
        if session is None or not link.credit or session.remote_window < len(parts):
            return False
        delivery = session.next_delivery
        session.next_delivery += 1
        for number, part in enumerate(parts, start=1):
            self._send(
                link.channel,
                "transfer",
                part,
                handle=Uint(link.handle),
                delivery_id=Uint(delivery),
                delivery_tag=delivery.to_bytes(8, "big"),
                message_format=Uint(0),
                settled=True,
                more=number < len(parts),
            )
        session.next_outgoing += len(parts)
        session.remote_window -= len(parts)
        link.credit -= 1
        link.deliveries += 1
        return True

    # What the client says

    def _header(self, header: bytes) -> list[Effect]:
        if header not in (PROTOCOL_HEADER, SASL_HEADER):
            self._out += PROTOCOL_HEADER
            return [Close(f"Expected AMQP 1.0, got {header.hex()}")]
        self._out += header
        if header == SASL_HEADER:
            # Who it is comes later, as a token on `$cbs`; TLS has no say in it.
            self._send(0, "sasl_mechanisms", mechanisms=Array((Symbol("ANONYMOUS"), Symbol("MSSBCBS"))))
        return []

    def _frame(self, frame: Frame) -> list[Effect]:
        if frame.name == "sasl_init":
            self._send(0, "sasl_outcome", code=Ubyte(0))
            return []
        if frame.name == "open":
            self._open(frame)
            return []
        if not self._is_open:
            raise AmqpError(f"Expected open, got {frame.name}")
        if frame.name == "close":
            self._send(0, "close")
            return [Close("the client closed")]
        if frame.name == "begin":
            self._begin(frame)
            return []
        session = self._sessions.get(frame.channel)
        if session is None:
            raise AmqpError(f"Expected {frame.name} on a channel with a session, got {frame.channel}")
        match frame.name:
            case "attach":
                return self._attach(session, frame)
            case "flow":
                return self._flow(session, frame)
            case "transfer":
                return self._transfer(session, frame)
            case "detach":
                return self._detach(session, frame)
            case "end":
                del self._sessions[frame.channel]
                self._send(frame.channel, "end")
                return [ReaderGone(link) for link in session.links.values() if link.is_open]
            case _:
                return []  # A disposition: what is sent is settled already.

    def _open(self, frame: Frame) -> None:
        self._is_open = True
        self._frame_bytes_max = min(max(frame.whole("max_frame_size", FRAME_BYTES_MAX), 512), 1 << 20)
        if idle_ms := frame.whole("idle_time_out", 0):
            self.idle_s = idle_ms / 1000
        limits = {"max_frame_size": Uint(FRAME_BYTES_MAX), "channel_max": Ushort(_SESSIONS_MAX - 1)}
        self._send(0, "open", container_id=self._container_id, idle_time_out=Uint(IDLE_S * 500), **limits)

    def _begin(self, frame: Frame) -> None:
        if frame.channel in self._sessions or len(self._sessions) >= _SESSIONS_MAX:
            raise AmqpError(f"Expected a free channel of at most {_SESSIONS_MAX}, got {frame.channel}")
        session = self._sessions[frame.channel] = _Session(remote_window=frame.whole("incoming_window"))
        self._send(
            frame.channel,
            "begin",
            remote_channel=Ushort(frame.channel),
            next_outgoing_id=Uint(session.next_outgoing),
            incoming_window=Uint(_WINDOW),
            outgoing_window=Uint(_WINDOW),
            handle_max=Uint(_LINKS_MAX - 1),
        )

    def _attach(self, session: _Session, frame: Frame) -> list[Effect]:
        handle, name, reads = frame.whole("handle"), frame["name"], frame["role"]
        if handle in session.links or not 0 <= handle < _LINKS_MAX:
            raise AmqpError(f"Expected a free handle below {_LINKS_MAX}, got {handle}")
        if not isinstance(name, str) or not isinstance(reads, bool):
            raise AmqpError("Expected a name and a role in attach")
        terminus = frame["source"] if reads else frame["target"]
        link = Link(frame.channel, handle, name, _address(terminus), frame["source"], frame["target"])
        session.links[handle] = link
        if reads and link.address in (CBS, MANAGEMENT):
            session.answers[link.address] = link
            self._attach_back(link)
        elif reads:
            link.selector = _selector(frame["source"])
            link.epoch = _epoch(frame["properties"])
            return [OpenReader(link)]
        elif link.address in (CBS, MANAGEMENT):
            self._attach_back(link, role=_RECEIVER)
            self._grant(session, link)
        else:
            self.refuse(
                link, "amqp:not-allowed", f"Expected {CBS} or {MANAGEMENT} to send to, got {link.address[:80]!r}"
            )
        return []

    def _attach_back(self, link: Link, *, role: bool = _SENDER) -> None:
        self._send(
            link.channel,
            "attach",
            name=link.name,
            handle=Uint(link.handle),
            role=role,
            snd_settle_mode=Ubyte(_SETTLED) if role is _SENDER else None,
            rcv_settle_mode=Ubyte(_FIRST),
            source=link.source,
            target=link.target,
            initial_delivery_count=Uint(0) if role is _SENDER else None,
        )

    def _grant(self, session: _Session, link: Link) -> None:
        """Credit for more requests; said again after each, which also opens the session's window again."""
        self._send_flow(session, link.channel, link, credit=_REQUEST_CREDIT)

    def _send_flow(self, session: _Session, channel: int, link: Link, *, credit: int) -> None:
        self._send(
            channel,
            "flow",
            next_incoming_id=Uint(0),
            incoming_window=Uint(0x7FFFFFFF),
            next_outgoing_id=Uint(session.next_outgoing),
            outgoing_window=Uint(_WINDOW),
            handle=Uint(link.handle),
            delivery_count=Uint(link.deliveries),
            link_credit=Uint(credit),
        )

    def _flow(self, session: _Session, frame: Frame) -> list[Effect]:
        known = frame.whole("next_incoming_id", session.next_outgoing)
        session.remote_window = max(0, known + frame.whole("incoming_window") - session.next_outgoing)
        if frame["handle"] is None:
            return [MaySend(link) for link in session.links.values() if link.is_open]
        link = session.links.get(frame.whole("handle"))
        if link is None:
            return []
        link.credit = max(0, frame.whole("delivery_count", 0) + frame.whole("link_credit", 0) - link.deliveries)
        if frame["drain"]:
            # Nothing is at hand at this moment, so the credit is used up (2.6.7).
            link.deliveries, link.credit = link.deliveries + link.credit, 0
            self._send_flow(session, frame.channel, link, credit=0)
        return [MaySend(link)] if link.is_open and link.credit else []

    def _transfer(self, session: _Session, frame: Frame) -> list[Effect]:
        link = session.links.get(frame.whole("handle"))
        if link is None or link.address not in (CBS, MANAGEMENT):
            raise AmqpError("Expected a transfer on a link to a node, got another")
        link.received += frame.payload
        if len(link.received) > _REQUEST_BYTES_MAX:
            raise AmqpError(f"Expected a request of at most {_REQUEST_BYTES_MAX} bytes, got more")
        if frame["more"]:
            return []
        message, link.received = bytes(link.received), bytearray()
        link.deliveries += 1
        if not frame["settled"]:
            delivery, accepted = Uint(frame.whole("delivery_id", 0)), Described(Ulong(0x24), [])
            self._send(
                frame.channel,
                "disposition",
                role=_RECEIVER,
                first=delivery,
                last=delivery,
                settled=True,
                state=accepted,
            )
        self._grant(session, link)
        return [Request(link.address, frame.channel, decode_message(message))]

    def _detach(self, session: _Session, frame: Frame) -> list[Effect]:
        link = session.links.pop(frame.whole("handle"), None)
        if link is None:
            return []  # The answer to our own.
        if session.answers.get(link.address) is link:
            del session.answers[link.address]
        self._send(frame.channel, "detach", handle=Uint(link.handle), closed=True)
        return [ReaderGone(link)] if link.is_open else []

    def _send(self, channel: int, name: str, payload: bytes = b"", /, **fields: Value) -> None:
        self._out += encode_frame(channel, name, payload, **fields)


def _error(condition: str, text: str) -> Described:
    return Described(Ulong(0x1D), [Symbol(condition), text])


def _address(terminus: Any) -> str:
    """The address of a source or a target, whose first field it is."""
    match terminus:
        case Described(value=[str(address), *_]):
            return address
        case _:
            return ""


def _selector(source: Any) -> str:
    """Where the client wants to begin: the text of the filter, the source's eighth field; empty without one."""
    match source:
        case Described(value=[_, _, _, _, _, _, _, dict() as filters, *_]):
            for key, value in filters.items():
                text = value.value if isinstance(value, Described) else value
                if key == _SELECTOR and isinstance(text, str | bytes):
                    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return ""


def _epoch(properties: Any) -> int | None:
    value = properties.get(_EPOCH) if isinstance(properties, Mapping) else None
    return int(value) if isinstance(value, int) else None
