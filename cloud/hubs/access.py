"""How the coordinator proves to IoT Hub who it is: by a policy's key, or by Microsoft Entra ID."""

import base64
import binascii
import hmac
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote_plus

from shared.hub.port import HubError, HubRefusedError

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

_TOKEN_S = 3600
_RENEW_BEFORE_S = 300
_SCOPE = "https://iothubs.azure.net/.default"


class ConnectionStringError(HubError):
    """Not a service connection string of an IoT Hub."""

    code = "connection_string"


class Access(Protocol):
    """One hub's name, and the header that opens its service API."""

    @property
    def hostname(self) -> str:
        """The host, with a port where it is not 443."""
        ...

    async def authorization(self) -> str:
        """The `Authorization` header of now. Raises HubRefusedError."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class ConnectionString:
    """`HostName=...;SharedAccessKeyName=...;SharedAccessKey=...`, read; the key never shows."""

    hostname: str
    policy: str
    key: bytes

    @classmethod
    def parse(cls, text: str) -> "ConnectionString":
        """Raises ConnectionStringError."""
        fields = dict(part.partition("=")[::2] for part in text.strip().split(";"))
        try:
            key = base64.b64decode(fields["SharedAccessKey"], validate=True)
            return cls(fields["HostName"], fields["SharedAccessKeyName"], key)
        except (KeyError, binascii.Error) as error:
            raise ConnectionStringError(
                "Expected HostName, SharedAccessKeyName and SharedAccessKey in the connection string",
                hint="`fleetlearn hub connection-string` prints the local hub's; Azure's portal shows IoT Hub's.",
            ) from error

    def __repr__(self) -> str:
        return f"ConnectionString(hostname={self.hostname!r}, policy={self.policy!r})"

    def token(self, *, now: float) -> str:
        """A token for the service API that lives an hour."""
        resource, expiry = quote_plus(self.hostname), int(now) + _TOKEN_S
        digest = hmac.digest(self.key, f"{resource}\n{expiry}".encode(), "sha256")
        signature = quote_plus(base64.b64encode(digest))
        return f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={quote_plus(self.policy)}"


class KeyAccess:
    """By the key of a policy. `clock` gives seconds since the epoch."""

    def __init__(self, connection_string: str, *, clock: Callable[[], float] = time.time) -> None:
        """Raises ConnectionStringError."""
        self._connection = ConnectionString.parse(connection_string)
        self._clock = clock
        self._token = ""
        self._renewal = -math.inf

    @property
    def hostname(self) -> str:
        return self._connection.hostname

    async def authorization(self) -> str:
        now = self._clock()
        if now >= self._renewal:
            self._token = self._connection.token(now=now)
            self._renewal = now + _TOKEN_S - _RENEW_BEFORE_S
        return self._token

    async def close(self) -> None:
        return


class EntraAccess:
    """By an identity of Microsoft Entra ID; the credential keeps and renews its tokens, and is closed with this."""

    def __init__(self, hostname: str, credential: "AsyncTokenCredential") -> None:
        self._hostname = hostname
        self._credential = credential

    @property
    def hostname(self) -> str:
        return self._hostname

    async def authorization(self) -> str:
        from azure.core.exceptions import ClientAuthenticationError

        try:
            token = await self._credential.get_token(_SCOPE)
        except ClientAuthenticationError as error:
            raise HubRefusedError(
                f"Expected an identity that Microsoft Entra ID knows, got: {str(error)[:300]}",
                hint="Run `az login`, or give the machine an identity with the role IoT Hub Data Contributor.",
            ) from error
        return f"Bearer {token.token}"

    async def close(self) -> None:
        await self._credential.close()
