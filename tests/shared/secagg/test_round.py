"""A round: the sum comes out whoever goes away when, and nothing else does, whatever the server tries."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.secagg import device as machine
from shared.secagg.device import DeviceState, Policy
from shared.secagg.errors import RoundLostError, RoundRefusedError
from shared.secagg.fixed_point import Words
from shared.secagg.messages import Agreement, Agreements, Inbox, Roster, Survivors, Terms, Unmasking
from shared.secagg.protocol import topology_of
from shared.secagg.secrets import mask
from shared.secagg.server import inbox_of
from shared.secagg.shamir import combine
from tests.shared.secagg.cohort import STAGES, Cohort, cohort, identity, summed, verify


@pytest.mark.parametrize("clients", [3, 4, 10, 20])
def test_the_sum_of_all_comes_out(clients: int) -> None:
    everybody = cohort(clients)
    np.testing.assert_array_equal(everybody.run(), summed(everybody.vectors))


@settings(max_examples=25, deadline=None)
@given(clients=st.integers(8, 14), data=st.data())
def test_the_sum_of_who_stayed_comes_out_whoever_goes_away_at_whatever_stage(clients: int, data: st.DataObject) -> None:
    """Up to the planned three tenths of the cohort, in any mixture of stages."""
    leaving = data.draw(st.lists(st.integers(0, clients - 1), max_size=int(0.3 * clients), unique=True))
    gone = {position: data.draw(st.sampled_from(STAGES)) for position in leaving}
    everybody = cohort(clients)
    total = everybody.run(gone)
    stayed = [position for position in range(clients) if gone.get(position) not in ("share", "mask")]
    np.testing.assert_array_equal(total, summed([everybody.vectors[position] for position in stayed]))


@settings(max_examples=20, deadline=None)
@given(gone=st.dictionaries(st.integers(0, 7), st.sampled_from(STAGES), min_size=4))
def test_when_too_many_go_away_the_round_is_lost_or_right_and_never_wrong(gone: dict[int, str]) -> None:
    everybody = cohort(8)
    try:
        total = everybody.run(gone)
    except (RoundLostError, RoundRefusedError):
        return
    np.testing.assert_array_equal(total, summed([everybody.vectors[position] for position in everybody.masked]))


def test_a_state_read_back_from_disk_gives_the_same_answers() -> None:
    straight, stored = cohort(6), cohort(6)

    def read_back(everybody: Cohort) -> None:
        everybody.states = [DeviceState.model_validate_json(state.model_dump_json()) for state in everybody.states]

    for everybody, between in ((straight, lambda _: None), (stored, read_back)):
        everybody.advertise()
        for stage in (everybody.share, everybody.mask, everybody.agree, everybody.release):
            between(everybody)
            stage({})
    assert straight.shared == stored.shared
    assert straight.unmaskings == stored.unmaskings
    np.testing.assert_array_equal(straight.total(), stored.total())


def test_asked_the_same_again_a_device_gives_the_same_answer_at_every_later_stage() -> None:
    everybody = cohort(6)
    everybody.run()
    state = everybody.states[2]
    assert machine.share(state, everybody.roster, policy=Policy(), verify=verify) == (state, everybody.shared[2])
    again, words = machine.mask(state, inbox_of(2, everybody.shared), everybody.vectors[2])
    assert again is state
    np.testing.assert_array_equal(words, everybody.masked[2])
    agreements = Agreements(agreements=tuple(everybody.agreements))
    assert machine.release(state, agreements, verify=verify) == (state, everybody.unmaskings[2])


def test_a_server_that_is_rewound_gets_no_second_answer() -> None:
    everybody = cohort(8)
    everybody.run()
    state, sign = everybody.states[2], identity("device-002").sign
    fewer = Roster(advertisements=everybody.roster.advertisements[:-1])
    inbox = inbox_of(2, everybody.shared)
    smaller = Inbox(sealed=dict(list(inbox.sealed.items())[1:]))
    with pytest.raises(RoundRefusedError, match="the same again after shared"):
        machine.share(state, fewer, policy=Policy(), verify=verify)
    with pytest.raises(RoundRefusedError, match="the same again after masked"):
        machine.mask(state, smaller, everybody.vectors[2])
    with pytest.raises(RoundRefusedError, match="the same again after masked"):
        machine.mask(state, inbox, everybody.vectors[2] + np.uint32(1))
    with pytest.raises(RoundRefusedError, match="the same again after agreed"):
        machine.agree(state, Survivors(positions=(1, 2, 3, 4, 5, 6, 7)), sign=sign)


def test_answers_out_of_order_are_refused() -> None:
    everybody = cohort(5)
    everybody.advertise()
    with pytest.raises(RoundRefusedError, match="Expected stage shared, got advertised"):
        machine.mask(everybody.states[0], Inbox(sealed={}), everybody.vectors[0])
    with pytest.raises(RoundRefusedError, match="Expected stage agreed, got advertised"):
        machine.release(everybody.states[0], Agreements(agreements=()), verify=verify)


def kinds_released(unmaskings: list[Unmasking], position: int) -> tuple[int, int]:
    """How many shares of a device's self mask and of its masking key the server holds."""
    return (
        sum(position in each.self_masks for each in unmaskings),
        sum(position in each.masking_keys for each in unmaskings),
    )


def test_the_server_never_holds_both_kinds_of_share_of_one_device() -> None:
    everybody = cohort(10)
    everybody.run({1: "mask", 4: "share", 7: "release"})
    for position in range(10):
        self_masks, masking_keys = kinds_released(everybody.unmaskings, position)
        assert min(self_masks, masking_keys) == 0
    assert kinds_released(everybody.unmaskings, 1)[1] > 0
    assert kinds_released(everybody.unmaskings, 7)[0] > 0


def looks_uniform(words: Words) -> bool:
    counts, _ = np.histogram(words, bins=64, range=(0, 2**32))
    expected = len(words) / 64
    return float(((counts - expected) ** 2 / expected).sum()) < 103.4  # 99.9 % of 63 degrees of freedom


def test_all_that_the_server_received_hides_every_single_update() -> None:
    """Its whole view, looked through: only the sum can be told from random words."""
    everybody = cohort(6, parameters=20_000)
    everybody.vectors = [np.full(20_000, position, np.uint32) for position in range(6)]
    total = everybody.run({5: "mask"})
    assert set(total.tolist()) == {0 + 1 + 2 + 3 + 4}
    threshold = topology_of(everybody.terms, everybody.roster).threshold
    for position, words in everybody.masked.items():
        assert looks_uniform(words)
        # The server can take off the device's own mask, and still sees random words.
        shares = {each.position + 1: each.self_masks.get(position) for each in everybody.unmaskings}
        own = combine(dict([(holder, share) for holder, share in shares.items() if share][:threshold]))
        assert looks_uniform(words - mask(own, len(words)))
    # Partial sums are hidden as well; the negative control is the sum of all, which is not.
    masked = list(everybody.masked.values())
    masks = [mask(state.self_mask, 20_000) for state in everybody.states[:5]]
    assert looks_uniform(summed(masked[:4]) - summed(masks[:4]))
    assert not looks_uniform(total)


def test_no_message_contains_an_update_or_a_root() -> None:
    everybody = cohort(6, parameters=64)
    everybody.run({5: "mask"})
    received = b"".join(
        [words.tobytes() for words in everybody.masked.values()]
        + [sealed for each in everybody.shared.values() for sealed in each.sealed.values()]
        + [share for each in everybody.unmaskings for share in (*each.self_masks.values(), *each.masking_keys.values())]
    )
    for state, vector in zip(everybody.states, everybody.vectors, strict=True):
        for secret in (state.root, state.sealing_key, state.masking_key, state.self_mask, vector.tobytes()[:16]):
            assert secret not in received


def test_a_server_that_tells_devices_different_survivors_gets_no_shares() -> None:
    """The attack that the signatures are for: each half is told that the other went away."""
    everybody = cohort(8)
    everybody.advertise()
    everybody.share({})
    everybody.mask({})
    told = [Survivors(positions=tuple(range(6))), Survivors(positions=tuple(range(2, 8)))]
    signed: list[list[Agreement]] = [[], []]
    for position in range(8):
        side = int(position > 3)
        sign = identity(everybody.name(position)).sign
        everybody.states[position], agreement = machine.agree(everybody.states[position], told[side], sign=sign)
        signed[side].append(agreement)
    for position in range(8):
        both = Agreements(agreements=(*signed[0], *signed[1]))
        with pytest.raises(RoundRefusedError, match="that signed the same survivors"):
            machine.release(everybody.states[position], both, verify=verify)


def test_a_sum_of_fewer_than_the_minimum_is_refused_by_the_devices() -> None:
    everybody = cohort(10, clients_min=8)
    everybody.advertise()
    everybody.share({})
    everybody.mask({0: "mask", 1: "mask", 2: "mask"})
    with pytest.raises(RoundRefusedError, match="a sum of at least 8 devices, got 7"):
        everybody.agree({0: "agree", 1: "agree", 2: "agree"})


def test_the_owners_minimum_holds_whatever_the_terms_say() -> None:
    everybody = cohort(5)
    everybody.policy = Policy(clients_min=6)
    everybody.advertise()
    with pytest.raises(RoundRefusedError, match="at least 6 devices, got 3"):
        everybody.share({})
    everybody.policy = Policy(corrupt_share_min=0.2)
    with pytest.raises(RoundRefusedError, match=r"a share of 0\.2 liars, got 0\.1"):
        everybody.share({})


def test_keys_that_their_device_did_not_sign_are_refused() -> None:
    everybody = cohort(5)
    everybody.advertise()
    theirs = everybody.roster.advertisements
    swapped = theirs[3].model_copy(update={"masking_key": theirs[2].masking_key})
    everybody.roster = Roster(advertisements=(*theirs[:3], swapped, theirs[4]))
    with pytest.raises(RoundRefusedError, match="keys signed by device-003"):
        everybody.share({})


def test_keys_of_another_round_are_refused() -> None:
    everybody, other = cohort(5), cohort(5)
    other.terms = Terms(**everybody.terms.model_dump() | {"round_id": "round-2"})
    everybody.advertise()
    other.advertise()
    everybody.roster = Roster(advertisements=(other.roster.advertisements[0], *everybody.roster.advertisements[1:]))
    with pytest.raises(RoundRefusedError, match="keys signed by device-000"):
        machine.share(everybody.states[1], everybody.roster, policy=Policy(), verify=verify)


def test_a_lying_neighbours_share_loses_the_round_and_is_never_added() -> None:
    everybody = cohort(5)
    everybody.run()
    first = everybody.unmaskings[0]
    wrong = {peer: bytes([0, *share[1:-1], share[-1] ^ 1]) for peer, share in first.self_masks.items()}
    everybody.unmaskings[0] = first.model_copy(update={"self_masks": wrong})
    with pytest.raises(RoundLostError, match="got wrong ones"):
        everybody.total()


def test_the_self_mask_digest_is_of_the_seed_that_was_dealt() -> None:
    everybody = cohort(4)
    everybody.run()
    for state, shared in zip(everybody.states, everybody.shared.values(), strict=True):
        assert hashlib.sha256(state.self_mask).digest() == shared.self_mask_digest
