"""How long a connection may go on as it is: to finish its handshake, to say who it is, and then to be silent."""

import asyncio
import math
from collections.abc import Callable

from cloud.localhub.limits import Limits
from cloud.localhub.session import Session, State
from cloud.localhub.wire import Wire


class Patience:
    """One timer, which looks at the deadline when it comes: what arrives meanwhile moves that, and not the timer.

    Args:
        session: Whose state decides what is waited for.
        wire: The same.
        limits: Of the time for each.
        on_late: Called when a deadline has passed.
    """

    __slots__ = (
        "_heard_at",
        "_limits",
        "_on_late",
        "_opened_at",
        "_secured_at",
        "_session",
        "_timer",
        "_wire",
        "expires_at",
    )

    def __init__(self, session: Session, wire: Wire, limits: Limits, *, on_late: Callable[[], None]) -> None:
        self.expires_at = math.inf
        """When what the device proved itself with runs out, in the loop's time."""
        self._session = session
        self._wire = wire
        self._limits = limits
        self._on_late = on_late
        self._opened_at = self._secured_at = self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """The connection is there."""
        self._opened_at = self._secured_at = asyncio.get_running_loop().time()
        self.renew()

    def heard(self) -> None:
        """Bytes came."""
        self._heard_at = asyncio.get_running_loop().time()

    def secured(self) -> None:
        """They ended the handshake."""
        self._secured_at = self._heard_at
        self.renew()

    def renew(self) -> None:
        """Sets the timer anew, where something else is waited for than before."""
        self.end()
        self._timer = asyncio.get_running_loop().call_at(self._deadline(), self._look_at_the_time)

    def end(self) -> None:
        """Waits for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_at_the_time(self) -> None:
        if asyncio.get_running_loop().time() >= self._deadline():
            self._on_late()
        else:
            self.renew()

    def _deadline(self) -> float:
        if self._session.state is State.CONNECTED:
            silent_until = self._heard_at + 1.5 * self._session.keep_alive_s
            return min(silent_until, self.expires_at)
        if self._wire.is_secure:
            return self._secured_at + self._limits.connect_s
        return self._opened_at + self._limits.handshake_s
