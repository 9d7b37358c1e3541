"""The server's side of TLS on one connection, without I/O: bytes in, bytes out.

asyncio's own TLS drops the alert of a handshake that failed, so a device with a wrong certificate would only see the
connection end, and try again for ever. Here the alert goes out, and the device knows that it was refused.
"""

import contextlib
import ssl
from pathlib import Path

from cloud.localhub.certificates import PeerCertificate, peer_certificate

_READ_BYTES = 65_536
_PIECE_BYTES, _HANDSHAKE_PIECE_BYTES = 4_096, 256
"""What OpenSSL is given at a time: a connection keeps a buffer for the largest piece for as long as it lives, and most
connections say little after their handshake."""


class TlsServer:
    """Feed it what the socket received, and send what `outgoing` returns after each call, failed ones included."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.is_established = False
        self.is_ended = False
        """Whether the other side has said goodbye."""

    def receive(self, data: bytes) -> bytes:
        """The plain bytes that these complete. Raises ssl.SSLError; the connection is then over."""
        plain: list[bytes] = []
        piece = _PIECE_BYTES if self.is_established else _HANDSHAKE_PIECE_BYTES
        for start in range(0, len(data), piece):
            self._incoming.write(data[start : start + piece])
            try:
                if not self.is_established:
                    self._tls.do_handshake()
                    self.is_established = True
                while chunk := self._tls.read(_READ_BYTES):
                    plain.append(chunk)
                self.is_ended = True
            except ssl.SSLWantReadError:
                continue  # There is no more in this piece.
        return b"".join(plain)

    def send(self, data: bytes) -> None:
        """Encrypts; the result is in `outgoing`."""
        self._tls.write(data)

    def end(self) -> None:
        """Says goodbye, without waiting for the other side's."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()

    def outgoing(self) -> bytes:
        """What is to be sent now."""
        return self._outgoing.read()

    def peer_certificate(self) -> PeerCertificate | None:
        """The verified client certificate, or None where there is none."""
        return peer_certificate(self._tls)


class Unencrypted:
    """Stands where `TlsServer` stands for a connection whose TLS ends before it."""

    def __init__(self, certificate: PeerCertificate | None) -> None:
        self._certificate = certificate
        self._outgoing = bytearray()
        self.is_established = True
        self.is_ended = False

    def receive(self, data: bytes) -> bytes:
        return data

    def send(self, data: bytes) -> None:
        self._outgoing += data

    def end(self) -> None:
        """There is no goodbye but the WebSocket's own."""

    def outgoing(self) -> bytes:
        data, self._outgoing = bytes(self._outgoing), bytearray()
        return data

    def peer_certificate(self) -> PeerCertificate | None:
        return self._certificate


def ca_file(data_dir: Path) -> Path:
    """The CA of a hub that made its own certificate: what its clients trust."""
    return data_dir / "tls" / "ca.pem"
