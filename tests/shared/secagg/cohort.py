"""A cohort of devices and a server that writes down all that it receives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.secagg import device as machine
from shared.secagg.device import DeviceState, Policy
from shared.secagg.fixed_point import Words
from shared.secagg.messages import (
    Advertisement,
    Agreement,
    Agreements,
    Roster,
    SealedShares,
    Survivors,
    Terms,
    Unmasking,
)
from shared.secagg.server import inbox_of, roster_of, unmasked

STAGES = ("share", "mask", "agree", "release")
Gone = Mapping[int, str]
"""Who goes away, by position, and before which answer."""


def summed(vectors: Sequence[Words]) -> Words:
    """Modulo 2**32."""
    total: Words = np.sum(vectors, axis=0, dtype=np.uint32)
    return total


@cache
def identity(device: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(device.encode().ljust(32, b"\0"))


def verify(advertisement: Advertisement, signed: bytes, signature: bytes) -> bool:
    try:
        identity(advertisement.device).public_key().verify(signature, signed)
    except InvalidSignature:
        return False
    return True


@dataclass
class Cohort:
    """Everybody, and everything the server was sent."""

    terms: Terms
    vectors: list[Words]
    policy: Policy = field(default_factory=Policy)
    states: list[DeviceState] = field(default_factory=list)
    roster: Roster = field(default_factory=lambda: Roster(advertisements=()))
    shared: dict[int, SealedShares] = field(default_factory=dict)
    masked: dict[int, Words] = field(default_factory=dict)
    agreements: list[Agreement] = field(default_factory=list)
    unmaskings: list[Unmasking] = field(default_factory=list)

    def name(self, position: int) -> str:
        return f"device-{position:03}"

    def advertise(self) -> None:
        found: list[Advertisement] = []
        for position in range(len(self.vectors)):
            root = position.to_bytes(2) * 16
            name = self.name(position)
            state, advertisement = machine.advertise(self.terms, device=name, root=root, sign=identity(name).sign)
            self.states.append(state)
            found.append(advertisement)
        self.roster = roster_of(found)

    def share(self, gone: Gone) -> None:
        for position in self._here("share", gone):
            self.states[position], self.shared[position] = machine.share(
                self.states[position], self.roster, policy=self.policy, verify=verify
            )

    def mask(self, gone: Gone) -> None:
        for position in self._here("mask", gone):
            self.states[position], self.masked[position] = machine.mask(
                self.states[position], inbox_of(position, self.shared), self.vectors[position]
            )

    def agree(self, gone: Gone) -> None:
        for position in self._here("agree", gone):
            sign = identity(self.name(position)).sign
            self.states[position], agreement = machine.agree(self.states[position], self.survivors, sign=sign)
            self.agreements.append(agreement)

    def release(self, gone: Gone) -> None:
        for position in self._here("release", gone):
            self.states[position], unmasking = machine.release(
                self.states[position], Agreements(agreements=tuple(self.agreements)), verify=verify
            )
            self.unmaskings.append(unmasking)

    @property
    def survivors(self) -> Survivors:
        return Survivors(positions=tuple(sorted(self.masked)))

    def total(self) -> Words:
        total = np.zeros(self.terms.parameters, np.uint32)
        for words in self.masked.values():
            total += words
        return unmasked(
            total,
            terms=self.terms,
            roster=self.roster,
            shared=self.shared,
            survivors=self.survivors,
            unmaskings=self.unmaskings,
        )

    def run(self, gone: Gone | None = None) -> Words:
        gone = gone or {}
        self.advertise()
        self.share(gone)
        self.mask(gone)
        self.agree(gone)
        self.release(gone)
        return self.total()

    def _here(self, stage: str, gone: Gone) -> list[int]:
        now = STAGES.index(stage)
        return [
            position
            for position in range(len(self.vectors))
            if position not in gone or STAGES.index(gone[position]) > now
        ]


def cohort(clients: int, *, parameters: int = 6, dropout_share: float = 0.3, clients_min: int = 3) -> Cohort:
    random = np.random.default_rng(clients)
    terms = Terms(
        round_id="round-1",
        parameters=parameters,
        clients_min=clients_min,
        corrupt_share=0.1,
        dropout_share=dropout_share,
    )
    return Cohort(terms, [random.integers(0, 2**32, parameters, np.uint32) for _ in range(clients)])
