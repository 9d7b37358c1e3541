"""What becomes of a client that was asked: it fetches the model, trains, sends its update, or is lost on the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulations.behaviour.availability import Clients, Flags, Presence, Seconds, next_available, presence, stays
from simulations.behaviour.settings import BehaviourSettings, Devices, Network
from simulations.keyed import Stream

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Load:
    """What a client has to do in a round, and to move."""

    examples: NDArray[np.float64]
    """Passes of one example in its training, `(K,)`."""
    bytes_down: float
    """Of the model and what is sent beside it."""
    bytes_up: float
    """Of the update as it is compressed."""


class Behaviour(Protocol):
    """How clients behave; the same answers to the same questions, in any order."""

    def is_there(self, clients: Clients, at_s: Seconds) -> Flags:
        """Whether each could be asked at this moment."""
        ...

    def durations(self, clients: Clients, starts: Ints, load: Load) -> Seconds:
        """Seconds from being asked to having sent the update, `(K,)`; infinity where a client is lost.

        Args:
            clients: `(K,)`.
            starts: A number for each start of a client, `(K,)`: what varies between its rounds is drawn for it.
            load: Its work.
        """
        ...

    def handed_in(self, clients: Clients, asked_s: Seconds, finished_s: Seconds) -> Seconds:
        """When an update arrives that is finished at this moment; infinity: never, its client went away meanwhile."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of the results should know, one sentence each."""
        ...


class ModelledBehaviour:
    """By the settings' models.

    Args:
        settings: Without a trace.
        seed: Decides everything that is drawn.
    """

    notes: Sequence[str] = ()

    def __init__(self, settings: BehaviourSettings, *, seed: int) -> None:
        self._settings = settings
        self._there = presence(settings.availability, seed=seed)
        self._speed, self._link, self._jitter, self._straggler, self._lost = (
            Stream.named(seed, name) for name in ("speed", "link", "jitter", "straggler", "lost")
        )

    def is_there(self, clients: Clients, at_s: Seconds) -> Flags:
        return self._there.state(clients, at_s)[0]

    def durations(self, clients: Clients, starts: Ints, load: Load) -> Seconds:
        seconds = self._train_s(clients, starts, load) + self._move_s(clients, load)
        is_lost = self._lost.uniform(clients, starts) < self._settings.dropout
        return np.where(is_lost, np.inf, seconds)

    def handed_in(self, clients: Clients, asked_s: Seconds, finished_s: Seconds) -> Seconds:
        return handed_in(self._there, clients, asked_s, finished_s, waits=self._settings.interrupted == "waits")

    def _train_s(self, clients: Clients, starts: Ints, load: Load) -> Seconds:
        devices: Devices = self._settings.devices
        spread = devices.sigma * self._speed.normal(clients) + devices.jitter * self._jitter.normal(clients, starts)
        is_straggler = self._straggler.uniform(clients, starts) < devices.straggler_chance
        slowness = np.exp(spread) * np.where(is_straggler, devices.straggler_factor, 1.0)
        seconds: Seconds = devices.overhead_s + devices.seconds_per_example * load.examples * slowness
        return seconds

    def _move_s(self, clients: Clients, load: Load) -> Seconds:
        network: Network = self._settings.network
        slowness = np.exp(network.sigma * self._link.normal(clients))
        mbit_s = 8e-6 * (load.bytes_down / network.down_mbit_s + load.bytes_up / network.up_mbit_s)
        seconds: Seconds = 2 * network.latency_s + mbit_s * slowness
        return seconds


def handed_in(there: Presence, clients: Clients, asked_s: Seconds, finished_s: Seconds, *, waits: bool) -> Seconds:
    """When an update arrives whose client may have gone away meanwhile."""
    arrived_s = np.full(len(clients), np.inf)
    some = np.flatnonzero(np.isfinite(finished_s))
    if waits:
        arrived_s[some] = next_available(there, clients[some], finished_s[some])
    else:
        some = some[stays(there, clients[some], asked_s[some], finished_s[some])]
        arrived_s[some] = finished_s[some]
    return arrived_s
