"""One socket's bytes as MQTT packets: TLS, framing, and what is written. Nothing waits here."""

import asyncio
from collections.abc import Iterable

from cloud.localhub.certificates import PeerCertificate
from cloud.localhub.codec import Decoder, Packet
from cloud.localhub.session import PACKET_BYTES_MAX
from cloud.localhub.tls import TlsServer, Unencrypted

_SHUTDOWN_S = 5.0
"""A device that does not take what was sent last is cut off after this."""


class Wire:
    """Give it the transport with `open`, then what the transport received; it writes by itself."""

    # Each connection has one: a dictionary of its own would cost more than all that it holds.
    __slots__ = ("_decoder", "_tls", "_transport")

    def __init__(self, tls: TlsServer | Unencrypted) -> None:
        self._tls = tls
        self._decoder = Decoder(packet_bytes_max=PACKET_BYTES_MAX)
        self._transport: asyncio.Transport | None = None

    def open(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    @property
    def is_secure(self) -> bool:
        """Whether the handshake is done."""
        return self._tls.is_established

    @property
    def is_ended(self) -> bool:
        """Whether the device has said TLS's goodbye."""
        return self._tls.is_ended

    def peer_certificate(self) -> PeerCertificate | None:
        """The verified client certificate, or None where there is none."""
        return self._tls.peer_certificate()

    def receive(self, data: bytes) -> Iterable[Packet]:
        """The packets that these bytes complete. Raises ssl.SSLError, or MqttError, also while iterating.

        What TLS has to say goes out at once, the alert of a failed handshake included.
        """
        try:
            plain = self._tls.receive(data)
        finally:
            self._flush()
        return self._decoder.feed(plain)

    def send(self, data: bytes) -> int:
        """Sends encoded packets; returns how many bytes wait for the device to read."""
        if self._transport is None or self._transport.is_closing():
            return 0
        self._tls.send(data)
        self._flush()
        return self._transport.get_write_buffer_size()

    def pause(self) -> None:
        """Reads no more, so that the device has to wait."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """Says goodbye; what was sent before still goes out, if the device reads it soon."""
        if self._transport is None:
            return
        if self._tls.is_established:
            self._tls.end()
        self._flush()
        self._transport.close()
        asyncio.get_running_loop().call_later(_SHUTDOWN_S, self._transport.abort)

    def abort(self) -> None:
        """Drops what waits to be sent."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if self._transport is not None and (encrypted := self._tls.outgoing()):
            self._transport.write(encrypted)
