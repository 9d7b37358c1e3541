"""The device's side of a round: a pure machine of five answers, each given once, in order.

    state, advertisement = advertise(terms, device=name, root=os.urandom(32), sign=sign)
    state, sealed = share(state, roster, policy=policy, verify=verify)
    state, words = mask(state, inbox, encoded_update)
    state, agreement = agree(state, survivors, sign=sign)
    state, unmasking = release(state, agreements, verify=verify)

Store the new state before the answer is sent. Asked the same again, a machine gives the same answer; asked anything
else at a stage it has passed, it refuses: a server that lost its memory, or pretends to, learns nothing new.

Guarantees:
    The server learns the sum of the survivors' vectors, and nothing else about any one of them, if fewer than
    `corrupt_share` of the roster work with it, devices' identities are genuine, and this state is stored before each
    answer. It holds against a server that departs from the protocol as it likes:

    - A vector leaves under a mask of the device's own and one for each neighbour; shares that would take off the former
      are released for survivors only, the latter for those who left only. `stage` and `answered` make sure that one
      device never releases both for one neighbour.
    - All devices release for one and the same list of survivors: more than half of the honest signed it.
    - The list has at least `clients_min` devices, by this device's own count and policy.

    What voids it: a disk set back to before an answer that was sent; a sum of which all other members work for the
    server; the sum itself, which may say much about few (noise is for that: `shared.user_privacy`).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from pydantic import BaseModel, ConfigDict

from shared.secagg.errors import RoundRefusedError
from shared.secagg.fixed_point import Words
from shared.secagg.messages import (
    Advertisement,
    Agreement,
    Agreements,
    Inbox,
    Roster,
    SealedShares,
    Survivors,
    Terms,
    Unmasking,
)
from shared.secagg.protocol import neighbours, pair_seed, signed_pair_mask, topology_of
from shared.secagg.secrets import agreed_key, derived, public_key, seal, unseal
from shared.secagg.secrets import mask as mask_words
from shared.secagg.shamir import SHARE_BYTES, split

Sign = Callable[[bytes], bytes]
Verify = Callable[[Advertisement, bytes, bytes], bool]
"""Whether the device that advertises made the signature (last) of these bytes."""


class Stage(IntEnum):
    ADVERTISED = 0
    SHARED = 1
    MASKED = 2
    AGREED = 3
    RELEASED = 4


@dataclass(frozen=True)
class Policy:
    """What the device's owner insists on, whatever the server's terms say."""

    clients_min: int = 3
    corrupt_share_min: float = 0.0


class DeviceState(BaseModel):
    """Everything a device must remember of a round; secret, and gone when the round is over."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    terms: Terms
    device: str
    root: bytes
    """32 random bytes of which all secrets of the round are derived."""
    stage: Stage = Stage.ADVERTISED
    answered: dict[Stage, bytes] = {}
    """Digest of what each answer was given for."""
    roster: Roster = Roster(advertisements=())
    inbox: Inbox = Inbox(sealed={})
    survivors: Survivors = Survivors(positions=())

    @property
    def position(self) -> int:
        return [each.device for each in self.roster.advertisements].index(self.device)

    @cached_property
    def sealing_key(self) -> bytes:
        return derived(self.root, "sealing key")

    @cached_property
    def masking_key(self) -> bytes:
        return derived(self.root, "masking key")

    @cached_property
    def self_mask(self) -> bytes:
        return derived(self.root, "self mask")


def advertise(
    terms: Terms, *, device: str, root: bytes, sign: Sign, certificate: bytes = b""
) -> tuple[DeviceState, Advertisement]:
    """The public keys of a round.

    Args:
        terms: Of the round.
        device: Its id.
        root: 32 unpredictable bytes, used for this round alone.
        sign: With the key of the device's identity.
        certificate: Of that key, if peers need it to check signatures.
    """
    state = DeviceState(terms=terms, device=device, root=root)
    keys = {"sealing_key": public_key(state.sealing_key), "masking_key": public_key(state.masking_key)}
    unsigned = Advertisement(device=device, signature=b"", certificate=certificate, **keys)
    return state, unsigned.model_copy(update={"signature": sign(unsigned.signed_bytes(terms))})


def share(state: DeviceState, roster: Roster, *, policy: Policy, verify: Verify) -> tuple[DeviceState, SealedShares]:
    """Shares of this device's two secrets, sealed for each neighbour. Raises RoundRefusedError."""
    after = _answering(state, Stage.SHARED, roster.digest, roster=roster)
    if after is not state:
        _check_terms(state.terms, policy)
        _check_roster(state, roster, verify)
    shape = topology_of(state.terms, roster)
    neighbours = _neighbours(after)
    self_masks, masking_keys = (
        split(
            secret,
            holders=[peer + 1 for peer in neighbours],
            threshold=shape.threshold,
            seed=derived(state.root, f"shares of the {name}"),
        )
        for name, secret in (("self mask", state.self_mask), ("masking key", state.masking_key))
    )
    sealed = {
        peer: seal(
            _pair_key(after, peer, sender=after.position, receiver=peer),
            self_masks[peer + 1] + masking_keys[peer + 1],
            bound_to=roster.digest,
        )
        for peer in neighbours
    }
    digest = hashlib.sha256(state.self_mask).digest()
    return after, SealedShares(position=after.position, sealed=sealed, self_mask_digest=digest)


def mask(state: DeviceState, inbox: Inbox, words: Words) -> tuple[DeviceState, Words]:
    """The update under its masks, `(parameters,)`. Raises RoundRefusedError."""
    assert words.shape == (state.terms.parameters,), f"Expected {state.terms.parameters} words, got {words.shape}"
    # Two vectors under one mask would show their difference.
    asked = hashlib.sha256(inbox.digest + words.astype("<u4").tobytes()).digest()
    after = _answering(state, Stage.MASKED, asked, inbox=inbox)
    if after is not state:
        _check_inbox(after)
    masked = words + mask_words(state.self_mask, len(words))
    for peer in inbox.sealed:
        masked += signed_pair_mask(
            pair_seed(state.terms, state.masking_key, state.roster.advertisements[peer].masking_key),
            length=len(words),
            mine=state.position,
            other=peer,
        )
    return after, masked


def agree(state: DeviceState, survivors: Survivors, *, sign: Sign) -> tuple[DeviceState, Agreement]:
    """The device's signature that these are the survivors; it will release shares for no others.

    Raises:
        RoundRefusedError: Too few, not all in the roster, or not this device among them.
    """
    after = _answering(state, Stage.AGREED, survivors.digest, survivors=survivors)
    if after is not state:
        _check_survivors(state, survivors)
    return after, Agreement(position=state.position, signature=sign(survivors.signed_bytes(state.terms, state.roster)))


def release(state: DeviceState, agreements: Agreements, *, verify: Verify) -> tuple[DeviceState, Unmasking]:
    """Shares of one secret of each neighbour, once enough devices signed the same survivors.

    Raises:
        RoundRefusedError: Too few signed, or this device has not.
    """
    # What was agreed on decides what is released, not who is shown to have agreed.
    after = _answering(state, Stage.RELEASED, state.survivors.digest)
    _check_agreements(state, agreements, verify)
    survived = set(state.survivors.positions)
    self_masks, masking_keys = {}, {}
    for peer, sealed in state.inbox.sealed.items():
        shares = _unsealed(state, peer, sealed)
        if peer in survived:
            self_masks[peer] = shares[:SHARE_BYTES]
        else:
            masking_keys[peer] = shares[SHARE_BYTES:]
    return after, Unmasking(position=state.position, self_masks=self_masks, masking_keys=masking_keys)


def _answering(state: DeviceState, stage: Stage, digest: bytes, **kept: BaseModel) -> DeviceState:
    """The state after this answer; the very same if it was given before. Raises RoundRefusedError."""
    if (before := state.answered.get(stage)) is not None:
        if before != digest:
            raise RoundRefusedError(
                f"Expected to be asked the same again after {stage.name.lower()}, got another question",
                hint="The server lost its state, or tries to learn more than a sum. Start another round.",
            )
        return state
    if state.stage != stage - 1:
        raise RoundRefusedError(f"Expected stage {Stage(stage - 1).name.lower()}, got {state.stage.name.lower()}")
    return state.model_copy(update={"stage": stage, "answered": state.answered | {stage: digest}, **kept})


def _check_terms(terms: Terms, policy: Policy) -> None:
    if terms.clients_min < policy.clients_min:
        raise RoundRefusedError(f"Expected sums of at least {policy.clients_min} devices, got {terms.clients_min}")
    if terms.corrupt_share < policy.corrupt_share_min:
        raise RoundRefusedError(
            f"Expected terms that withstand a share of {policy.corrupt_share_min:g} liars, got {terms.corrupt_share:g}"
        )


def _check_roster(state: DeviceState, roster: Roster, verify: Verify) -> None:
    devices = [each.device for each in roster.advertisements]
    if devices != sorted(set(devices)):
        raise RoundRefusedError("Expected every device once, by ascending id")
    if len(roster) < state.terms.clients_min:
        raise RoundRefusedError(f"Expected at least {state.terms.clients_min} devices, got {len(roster)}")
    own = {public_key(state.sealing_key), public_key(state.masking_key)}
    mine = [each for each in roster.advertisements if each.device == state.device]
    if [{each.sealing_key, each.masking_key} for each in mine] != [own]:
        raise RoundRefusedError("Expected this device's own keys in the roster, got others or none")
    for each in roster.advertisements:
        if not verify(each, each.signed_bytes(state.terms), each.signature):
            raise RoundRefusedError(f"Expected keys signed by {each.device}, got a signature that is not its own")


def _check_inbox(state: DeviceState) -> None:
    neighbours, threshold = set(_neighbours(state)), topology_of(state.terms, state.roster).threshold
    if not set(state.inbox.sealed) <= neighbours:
        raise RoundRefusedError("Expected shares of neighbours only")
    if len(state.inbox.sealed) < threshold:
        raise RoundRefusedError(f"Expected shares of at least {threshold} neighbours, got {len(state.inbox.sealed)}")
    for peer, sealed in state.inbox.sealed.items():
        _unsealed(state, peer, sealed)  # What cannot be read now could not be released later.


def _check_survivors(state: DeviceState, survivors: Survivors) -> None:
    positions, clients = survivors.positions, len(state.roster)
    at_least = max(state.terms.clients_min, topology_of(state.terms, state.roster).agreement)
    if list(positions) != sorted(set(positions)) or not set(positions) <= set(range(clients)):
        raise RoundRefusedError("Expected positions of the roster, ascending")
    if len(positions) < at_least:
        raise RoundRefusedError(f"Expected a sum of at least {at_least} devices, got {len(positions)}")
    if state.position not in positions:
        raise RoundRefusedError("Expected this device among the survivors, since it sent its update")
    if not set(positions) & set(_neighbours(state)) <= set(state.inbox.sealed):
        raise RoundRefusedError("Expected survivors who had shared their secrets, got others")


def _check_agreements(state: DeviceState, agreements: Agreements, verify: Verify) -> None:
    signed = state.survivors.signed_bytes(state.terms, state.roster)
    survived, at_least = set(state.survivors.positions), topology_of(state.terms, state.roster).agreement
    agreed = {
        each.position
        for each in agreements.agreements
        if each.position in survived and verify(state.roster.advertisements[each.position], signed, each.signature)
    }
    if len(agreed) < at_least:
        raise RoundRefusedError(f"Expected {at_least} devices that signed the same survivors, got {len(agreed)}")


def _neighbours(state: DeviceState) -> tuple[int, ...]:
    return neighbours(state.terms, state.roster, state.position)


def _unsealed(state: DeviceState, peer: int, sealed: bytes) -> bytes:
    key = _pair_key(state, peer, sender=peer, receiver=state.position)
    shares = unseal(key, sealed, bound_to=state.roster.digest)
    if len(shares) != 2 * SHARE_BYTES:
        raise RoundRefusedError(f"Expected {2 * SHARE_BYTES} sealed bytes, got {len(shares)}")
    return shares


def _pair_key(state: DeviceState, peer: int, *, sender: int, receiver: int) -> bytes:
    public = state.roster.advertisements[peer].sealing_key
    purpose = f"seal {state.terms.digest.hex()} {sender} to {receiver}"
    return agreed_key(state.sealing_key, public, purpose=purpose)
