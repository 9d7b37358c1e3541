"""What travels in a round of secure aggregation, and the terms it is under. Positions count in the roster, from 0.

device                         server
Advertisement       ->
                    <-         Roster
SealedShares        ->
                    <-         Inbox
masked words        ->
                    <-         Survivors
Agreement           ->
                    <-         Agreements
Unmasking           ->                       the sum
"""

import hashlib
from functools import cached_property
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Position = Annotated[int, Field(ge=0)]
Key = Annotated[bytes, Field(min_length=32, max_length=32)]
Share = Annotated[bytes, Field(min_length=33, max_length=33)]
Signature = Annotated[bytes, Field(max_length=256)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of what it says."""
        return hashlib.sha256(type(self).__name__.encode() + b"\0" + self._said().encode()).digest()

    def _said(self) -> str:
        return self.model_dump_json()


class SummedNoise(_Message):
    """Noise that all members of a sum make together (`shared.secagg.noise`): each knows that all others add theirs."""

    deviation: float = Field(gt=0)
    """Standard deviation of all of it, on each number of the sum, in the units of the values."""
    norm_max: float = Field(gt=0)
    """L2 bound of each member's vector, to which it is clipped first."""
    clients: int = Field(ge=1)
    """Members whose shares make all of it; what more add is on top."""


class Terms(_Message):
    """What a round is, the same for all: decided before anybody advertises."""

    round_id: str
    parameters: int = Field(gt=0)
    clients_min: int = Field(ge=3)
    """A sum of fewer updates is never unmasked."""
    corrupt_share: float = Field(default=0.1, ge=0, lt=0.5)
    """Devices that may work for the server, as a share of those asked."""
    dropout_share: float = Field(default=0.3, ge=0, lt=0.5)
    noise: SummedNoise | None = None

    def _said(self) -> str:
        # Devices of before there was noise know no such field, and take part where there is none.
        return self.model_dump_json(exclude=None if self.noise else {"noise"})


class Advertisement(_Message):
    """A device's two public keys for this round, signed with the key of its identity."""

    device: str
    sealing_key: Key
    masking_key: Key
    signature: Signature
    certificate: Annotated[bytes, Field(max_length=8192)] = b""
    """The device's, PEM, for whoever checks signatures."""

    def signed_bytes(self, terms: Terms) -> bytes:
        return b"secagg advertisement\0" + terms.digest + self.device.encode() + self.sealing_key + self.masking_key


class Roster(_Message):
    """Everybody who advertised, by ascending device id."""

    advertisements: tuple[Advertisement, ...]

    def __len__(self) -> int:
        return len(self.advertisements)


class SealedShares(_Message):
    """A device's shares for its neighbours, each readable by that neighbour alone."""

    position: Position
    sealed: dict[Position, bytes]
    self_mask_digest: Key
    """SHA-256 of the seed of its own mask, so that a wrong share is noticed and not added."""


class Inbox(_Message):
    """What a device's neighbours sealed for it, by sender."""

    sealed: dict[Position, bytes]


class Survivors(_Message):
    """Whose masked updates are in the sum, ascending."""

    positions: tuple[Position, ...]

    def signed_bytes(self, terms: Terms, roster: Roster) -> bytes:
        return b"secagg survivors\0" + terms.digest + roster.digest + self.digest


class Agreement(_Message):
    position: Position
    signature: Signature


class Agreements(_Message):
    agreements: tuple[Agreement, ...]


class Unmasking(_Message):
    """A device's shares of its neighbours' secrets: one kind for each neighbour, never both."""

    position: Position
    self_masks: dict[Position, Share]
    """Of those who survived: the seed of their own mask."""
    masking_keys: dict[Position, Share]
    """Of those who went away after they had shared: the private key of their pairwise masks."""
