"""Where a broker is, and which fleet of the many that may share it: `mqtts://broker.example:8883/plant-7`."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from shared.hub.port import HubError

SCHEME = "mqtts"
PORT = 8883
FLEET = "main"
_FLEET = re.compile(r"[a-z0-9-]{1,64}")


class BrokerAddressError(HubError):
    """Not the address of an MQTT broker."""

    code = "broker_address"


@dataclass(frozen=True)
class BrokerAddress:
    """A broker, always over TLS: what a client may do rests on its certificate."""

    host: str
    port: int = PORT
    fleet: str = FLEET
    """The second level of every topic."""

    @classmethod
    def parse(cls, url: str) -> "BrokerAddress":
        """Raises BrokerAddressError.

        >>> BrokerAddress.parse("mqtts://broker.example/plant-7")
        BrokerAddress(host='broker.example', port=8883, fleet='plant-7')
        """
        try:
            parts = urlsplit(url)
            fleet = parts.path.strip("/") or FLEET
            is_whole = parts.scheme == SCHEME and parts.hostname and _FLEET.fullmatch(fleet)
            if not is_whole or parts.username or parts.query or parts.fragment:
                raise ValueError("not of this form")
            return cls(parts.hostname or "", parts.port or PORT, fleet)
        except ValueError as error:
            shown = re.sub(r"//[^/]*@", "//...@", url)[:120]  # what stands before an @ may be a password
            raise BrokerAddressError(
                f"Expected a broker as mqtts://HOST[:PORT][/FLEET], got {shown!r}",
                hint="The fleet's name is a-z, 0-9 and '-'. Clients prove themselves by certificate: no password.",
            ) from error

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{SCHEME}://{host}:{self.port}/{self.fleet}"
