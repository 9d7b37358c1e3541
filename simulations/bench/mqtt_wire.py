"""MQTT over TLS on a plain socket, at the least cost in Python: the client that every hub and broker is loaded with.

A client library costs more than the broker it would measure. Here packets are built once, and what is sent or received
at one time is one TLS call each.
"""

import socket
import ssl
import struct
from pathlib import Path

from simulations.bench.errors import BenchError

PUBACK_BYTES = 4
_READ_BYTES = 262_144


def client_tls(folder: Path, device_id: str) -> ssl.SSLContext:
    """What the device shows and trusts; its files are in the folder, by name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # The bench dials an address; the certificate is checked against the CA.
    context.load_verify_locations(folder / "ca.pem")
    context.load_cert_chain(folder / f"{device_id}.pem", folder / f"{device_id}.key")
    return context


class Wire:
    """One TLS connection. `begin`, then `read` whenever the socket is readable; the first reads shake hands."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self.socket = socket.create_connection((host, port), timeout=30)
        self.socket.settimeout(None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_open = False
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)

    def begin(self) -> None:
        """Says hello."""
        self._shake_hands()

    def read(self) -> bytes:
        """The plain bytes that have arrived, maybe none. Raises BenchError at the connection's end."""
        data = self.socket.recv(_READ_BYTES)
        if not data:
            raise BenchError("Expected the connection to stay open, but the other side closed it")
        self._incoming.write(data)
        if not self.is_open:
            self._shake_hands()
            if not self.is_open:
                return b""
        chunks: list[bytes] = []
        try:
            while chunk := self._tls.read(_READ_BYTES):
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            pass
        return b"".join(chunks)

    def write(self, data: bytes | memoryview) -> None:
        self._tls.write(data)
        self.socket.sendall(self._outgoing.read())

    def open(self) -> None:
        """Shakes hands to the end, waiting."""
        self.begin()
        while not self.is_open:
            self.read()

    def close(self) -> None:
        self.socket.close()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
            self.is_open = True
        except ssl.SSLWantReadError:
            pass
        if hello := self._outgoing.read():
            self.socket.sendall(hello)


def connect_packet(device_id: str, host: str) -> bytes:
    """CONNECT as IoT Hub wants it; a broker takes it too."""
    username = f"{host}/{device_id}/?api-version=2021-04-12"
    body = _text("MQTT") + struct.pack("!BBH", 4, 0x82, 600) + _text(device_id) + _text(username)
    return _packet(0x10, body)


def subscribe_packet(*filters: str, qos: int = 0) -> bytes:
    return _packet(0x82, struct.pack("!H", 1) + b"".join(_text(each) + bytes((qos,)) for each in filters))


def publish_packet(topic: str, payload: bytes, *, packet_id: int = 0) -> bytes:
    """QoS 1 with a packet id, else QoS 0."""
    identifier = struct.pack("!H", packet_id) if packet_id else b""
    return _packet(0x32 if packet_id else 0x30, _text(topic) + identifier + payload)


def greet(wire: Wire, device_id: str, host: str, *filters: str) -> None:
    """Connects and subscribes, waiting for both answers. Raises BenchError where one is no."""
    wire.write(connect_packet(device_id, host) + (subscribe_packet(*filters) if filters else b""))
    expected = 4 + (4 + len(filters) if filters else 0)
    answer = b""
    while len(answer) < expected:
        answer += wire.read()
    check_greeting(answer)


def check_greeting(answer: bytes) -> None:
    """Raises BenchError for a CONNACK or SUBACK that refuses."""
    if answer[:1] != b"\x20" or answer[3] != 0 or b"\x80" in answer[8:]:
        raise BenchError(f"Expected to be let in, got {answer[:12].hex()}")


def _packet(first: int, body: bytes) -> bytes:
    header, size = bytearray((first,)), len(body)
    while size > 0x7F:
        header.append(size & 0x7F | 0x80)
        size >>= 7
    header.append(size)
    return bytes(header) + body


def _text(text: str) -> bytes:
    return struct.pack("!H", len(text.encode())) + text.encode()
