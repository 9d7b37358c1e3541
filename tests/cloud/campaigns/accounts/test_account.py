"""Accounts over all campaigns: the accountant's word on the whole history, and who could not pay for one more."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant

from cloud.campaigns.accounts.account import Account, Costs, Take, accounts_of, expected_refusal, unspent, view
from edge_agent.training.ledger import PrivacyOverspendError
from shared.accountant import epsilon_of
from shared.privacy import DEVICE, MechanismEvent, PrivacyLimits, PrivacySpec, PrivacySpent, UserPrivacySpec
from tests.edge_agent.training.ledgers import DELTA, open_ledger

LIMITS = PrivacyLimits(epsilon_limit=8.0, device_epsilon_limit=4.0, delta=DELTA)


def example(noise: float = 2.0, *, rate: float = 0.25, steps: int = 4) -> PrivacySpec:
    return PrivacySpec(
        epsilon=1, delta=DELTA, noise_multiplier=noise, max_grad_norm=1, sampling_rate=rate, steps_per_round=steps,
        rounds=1,
    )  # fmt: skip


def hiding(noise: float = 2.0, *, rate: float = 1.0, rounds: int = 10) -> UserPrivacySpec:
    return UserPrivacySpec(
        epsilon=1, delta=DELTA, noise_multiplier=noise, clip_norm=1, sampling_rate=rate, expected_clients=9,
        rounds=rounds,
    )  # fmt: skip


def told(epsilon: float, dataset_id: str = "data", *, limit: float = 8.0) -> PrivacySpent:
    return PrivacySpent(epsilon=epsilon, delta=DELTA, epsilon_limit=limit, dataset_id=dataset_id, unit="recording")


def accounts(
    *takes: Take, ledger: tuple[PrivacySpent, ...] = (), limits: PrivacyLimits | None = LIMITS
) -> list[Account]:
    return accounts_of("press-07", told=ledger, limits=limits, takes=takes)


def opacus_epsilon(*events: MechanismEvent) -> float:
    accountant = RDPAccountant()
    accountant.history = [(event.noise_multiplier, event.sampling_rate, event.steps) for event in events]
    return float(accountant.get_epsilon(DELTA))


def test_campaigns_on_one_data_set_are_composed_and_not_added_up() -> None:
    specs = [example(2.0), example(3.0, rate=0.5), example(2.5, rate=1.0, steps=1)]
    (found,) = accounts(*(Take(Costs(f"c{place}", spec), 2, "data") for place, spec in enumerate(specs)))
    events = [
        MechanismEvent(
            dataset_id="data",
            unit="recording",
            noise_multiplier=spec.noise_multiplier,
            sampling_rate=spec.sampling_rate,
            steps=2 * spec.steps_per_round,
        )
        for spec in specs
    ]
    shown = view(found)
    assert shown.epsilon == pytest.approx(epsilon_of(events, DELTA))
    assert shown.epsilon == pytest.approx(opacus_epsilon(*events), rel=1e-6)
    alone = [each.epsilon for each in shown.campaigns]
    assert alone == sorted((epsilon_of([event], DELTA) for event in events), reverse=True)
    # Wrong answers: the sum of what each cost, and the most expensive alone.
    assert max(alone) < shown.epsilon < 0.9 * sum(alone)
    assert shown.epsilon_left == pytest.approx(8.0 - shown.epsilon)


def test_each_data_set_has_its_account_and_the_device_one_for_all() -> None:
    both = Costs("both", example(), hiding())
    found = {
        each.dataset_id: view(each)
        for each in accounts(
            Take(both, 2, "january"), Take(both, 3, "february"), Take(Costs("c", None, hiding()), 1, DEVICE)
        )
    }
    assert set(found) == {"january", "february", DEVICE}
    assert {name: [(each.campaign_id, each.times) for each in shown.campaigns] for name, shown in found.items()} == {
        "january": [("both", 2)],
        "february": [("both", 3)],
        DEVICE: [("both", 5), ("c", 1)],
    }
    assert found[DEVICE].epsilon == pytest.approx(epsilon_of([hiding().charge(times=6)], DELTA))
    assert (found[DEVICE].epsilon_limit, found["january"].epsilon_limit) == (4.0, 8.0)


def test_work_of_which_nothing_was_told_may_have_been_on_any_data() -> None:
    costs = Costs("c", example())
    january, february = accounts(Take(costs, 1, "january"), Take(costs, 1, "february"), Take(costs, 2, None))
    assert (january.times["c"], february.times["c"]) == (3, 3)
    (unknown,) = accounts(Take(costs, 2, None), limits=None)
    assert (unknown.dataset_id, unknown.limit, unknown.times["c"]) == ("", None, 2)
    assert unknown.spent == pytest.approx(epsilon_of([example_event(8)], DELTA))


def example_event(steps: int) -> MechanismEvent:
    return MechanismEvent(dataset_id="", unit="", noise_multiplier=2.0, sampling_rate=0.25, steps=steps)


def test_the_greater_of_ledger_and_record_is_shown() -> None:
    costs = Costs("c", example())
    (less,), (more,) = (accounts(Take(costs, 4, "data"), ledger=(told(epsilon),)) for epsilon in (0.1, 6.0))
    assert less.spent == less.asked > 0.1
    assert more.spent == 6.0 > more.asked
    assert view(more).epsilon_left == 2.0


def test_without_work_and_without_a_ledgers_word_there_is_no_account() -> None:
    assert accounts() == []
    (alone,) = accounts(ledger=(told(3.0),), limits=None)
    assert (alone.spent, alone.limit, view(alone).campaigns) == (3.0, 8.0, [])


@given(past=st.integers(0, 12), noise=st.sampled_from([1.2, 2.0, 4.0]), rounds=st.integers(1, 12), hides=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_ledger_refuses_in_the_round_that_was_foretold(
    past: int, noise: float, rounds: int, hides: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The whole of it on a real ledger: what was done before, and then the campaign, round by round."""
    name = DEVICE if hides else "data"
    before, asked = (
        Costs(campaign, None if hides else example(each), hiding(each, rounds=20) if hides else None)
        for campaign, each in (("before", 3.0), ("asked", noise))
    )
    ledger = open_ledger(tmp_path_factory.mktemp("ledger"), limit=8.0, device_limit=4.0)
    one = {"before": before, "asked": asked}

    def works(campaign: str, most: int) -> int:
        for number in range(most):
            event = (one[campaign].device_event if hides else one[campaign].data_event)(times=1)
            try:
                ledger.reserve(f"{campaign}-{number}", dataset_id=name, event=event)
            except PrivacyOverspendError:
                return number
        return most

    done = works("before", past)
    found = accounts(Take(before, done, name)) if done else []
    foretold = expected_refusal(found[0] if found else unspent("press-07", name, LIMITS), asked, rounds=rounds)
    seen = works("asked", rounds)
    ledger.close()
    assert (rounds if foretold is None else foretold.rounds) == seen
    assert foretold is None or foretold.epsilon > foretold.epsilon_limit == (4.0 if hides else 8.0)


def test_rounds_of_coins_are_refused_at_the_first_or_never() -> None:
    costs = Costs("c", None, hiding(0.8, rate=0.2, rounds=50))
    refusal = expected_refusal(unspent("press-07", DEVICE, LIMITS), costs, rounds=50)
    assert refusal is not None
    assert refusal.rounds == 0
    cheap = Costs("c", None, hiding(3.0, rate=0.2, rounds=50))
    assert expected_refusal(unspent("press-07", DEVICE, LIMITS), cheap, rounds=50) is None


def test_what_others_asked_for_counts_against_the_next_campaign() -> None:
    """The ledger says more than is known here: its epsilon is composed with what comes, not added and not ignored."""
    costs = Costs("c", example(2.0, rate=1.0, steps=1))
    (elsewhere,) = accounts(ledger=(told(6.0),))
    refusal = expected_refusal(elsewhere, costs, rounds=10)
    fresh = expected_refusal(unspent("press-07", "data", LIMITS), costs, rounds=10)
    assert refusal is not None
    assert 0 < refusal.rounds < (fresh.rounds if fresh else 10)
    # One Gaussian of epsilon 6 and its rounds, in one reckoning.
    assert (
        6.0
        < refusal.epsilon
        < 6.0 + epsilon_of([example_event(1).model_copy(update={"sampling_rate": 1.0})], DELTA) * (refusal.rounds + 1)
    )


def test_a_limit_that_was_never_told_foretells_nothing() -> None:
    costs = Costs("c", example(0.3, rate=1.0))
    (unknown,) = accounts(Take(costs, 1, None), limits=None)
    assert expected_refusal(unknown, costs, rounds=10) is None


def test_an_account_that_a_campaign_does_not_touch_is_never_too_small(tmp_path: Path) -> None:
    full = accounts(ledger=(told(8.0), told(4.0, DEVICE, limit=4.0)))
    assert [expected_refusal(each, Costs("c", None, None), rounds=9) for each in full] == [None, None]
    only_device = Costs("c", None, hiding())
    assert [expected_refusal(each, only_device, rounds=9) is None for each in full] == [True, False]
