"""The server's side of a round: pure functions of what devices sent, so that a round can be rebuilt from stored rows.

roster = roster_of(advertisements)
inbox = inbox_of(position, shared)               # for each who shared: what its neighbours sealed for it
total = total + words                            # each masked update, as it comes; memory for one model
survivors = Survivors(positions=...)             # whose words are in the total
total = unmasked(total, ...)                     # after enough devices agreed and released
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from shared.secagg.errors import RoundLostError
from shared.secagg.fixed_point import Words
from shared.secagg.messages import Advertisement, Inbox, Roster, SealedShares, Survivors, Terms, Unmasking
from shared.secagg.protocol import neighbours, pair_seed, signed_pair_mask, topology_of
from shared.secagg.secrets import mask, public_key
from shared.secagg.shamir import combine


def roster_of(advertisements: Iterable[Advertisement]) -> Roster:
    return Roster(advertisements=tuple(sorted(advertisements, key=lambda each: each.device)))


def inbox_of(position: int, shared: Mapping[int, SealedShares]) -> Inbox:
    """What was sealed for the device at this position, by those who shared."""
    return Inbox(sealed={peer: each.sealed[position] for peer, each in shared.items() if position in each.sealed})


def unmasked(
    total: Words,
    *,
    terms: Terms,
    roster: Roster,
    shared: Mapping[int, SealedShares],
    survivors: Survivors,
    unmaskings: Sequence[Unmasking],
) -> Words:
    """The sum of the survivors' vectors, `(parameters,)`.

    Args:
        total: Sum of the survivors' masked vectors, modulo 2**32.
        terms: Of the round.
        roster: Of the round.
        shared: Who had shared secrets, by position.
        survivors: Whose vectors are in the total.
        unmaskings: What devices released.

    Raises:
        RoundLostError: Too few shares of somebody's secret came, or wrong ones.
    """
    result, survived = total.copy(), set(survivors.positions)
    threshold = topology_of(terms, roster).threshold
    for position in sorted(shared):
        if position in survived:
            result -= mask(_self_mask(position, shared, unmaskings, threshold), len(result))
        else:
            key = _masking_key(position, roster, unmaskings, threshold)
            for peer in neighbours(terms, roster, position):
                if peer in survived:
                    seed = pair_seed(terms, key, roster.advertisements[peer].masking_key)
                    result -= signed_pair_mask(seed, length=len(result), mine=peer, other=position)
    return result


def _self_mask(
    position: int, shared: Mapping[int, SealedShares], unmaskings: Sequence[Unmasking], threshold: int
) -> bytes:
    secret = _secret({each.position: each.self_masks.get(position) for each in unmaskings}, threshold, position)
    if hashlib.sha256(secret).digest() != shared[position].self_mask_digest:
        raise _wrong_shares(position)
    return secret


def _masking_key(position: int, roster: Roster, unmaskings: Sequence[Unmasking], threshold: int) -> bytes:
    secret = _secret({each.position: each.masking_keys.get(position) for each in unmaskings}, threshold, position)
    if public_key(secret) != roster.advertisements[position].masking_key:
        raise _wrong_shares(position)
    return secret


def _secret(shares: Mapping[int, bytes | None], threshold: int, position: int) -> bytes:
    """The secret, of the first `threshold` shares by holder."""
    found = [(holder + 1, given) for holder, given in sorted(shares.items()) if given is not None]
    if len(found) < threshold:
        raise RoundLostError(
            f"Expected {threshold} neighbours of device {position} of the roster to answer, got {len(found)}",
            hint="Nothing about any update was learned. Start another round, or plan for more dropouts.",
        )
    try:
        return combine(dict(found[:threshold]))
    except OverflowError:
        raise _wrong_shares(position) from None


def _wrong_shares(position: int) -> RoundLostError:
    return RoundLostError(f"Expected the shares that device {position} of the roster dealt, got wrong ones")
