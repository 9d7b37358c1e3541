"""The account of a device with all its data: charged for what the device can know, beside its data's, or refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.training.charges import data_event, device_charge
from edge_agent.training.errors import RefusedWorkError
from edge_agent.training.ledger import Charge, Ledger, PrivacyOverspendError, WorkConflictError, read_balances
from shared.accountant import epsilon_of
from shared.analytics.query import Protected, Query
from shared.messages.events import WorkStatus
from shared.messages.work import UserWork, Work
from shared.privacy import DEVICE, Adjacency, MechanismEvent, PrivacySpent
from tests.edge_agent.training.device import MODEL, TASK, Device
from tests.edge_agent.training.ledgers import DELTA, ROUND, counting_ledger, killed_once_reserved, open_ledger
from tests.edge_agent.training.test_user_privacy import SUMMED, secure, user

COINS: dict[str, Any] = {"sampling_rate": 0.1, "rounds": 40, "adjacency": Adjacency.ADD_OR_REMOVE_ONE}


def asked(user_work: UserWork | None, *, work_id: str = "w", number: int = 1, **fields: Any) -> Work:
    """Training work of campaign `c`. `Any`: fields of Work."""
    known = {"work_id": work_id, "kind": "train", "campaign_id": "c", "round": number, "task": "digits"}
    known |= {"task_version": TASK.version, "model": {"digest": "0" * 64, "size_bytes": 1}, "deadline_s": 60}
    return Work.model_validate({**known, "user_privacy": user_work, **fields})


def charge(user_work: UserWork, **fields: Any) -> Charge:
    found = device_charge(asked(user_work, **fields))
    assert found is not None
    return found


def whole(noise: float = 2.0, *, charge_id: str = "device, work w") -> Charge:
    event = MechanismEvent(dataset_id=DEVICE, unit=DEVICE, noise_multiplier=noise, sampling_rate=1.0, steps=1)
    return Charge(charge_id, event)


# What is charged


def test_noise_of_the_devices_is_charged_in_full_whatever_the_coordinator_says_of_its_coins() -> None:
    boasting = user(**SUMMED, **COINS)
    event = charge(boasting, secure=secure(boasting)).event
    assert (event.sampling_rate, event.steps, event.noise_multiplier) == (1.0, 1, 1.0)
    assert event.adjacency == Adjacency.ZERO_OUT_ONE


def test_noise_of_the_devices_without_a_sum_to_be_in_is_refused() -> None:
    lonely = user(**SUMMED)
    with pytest.raises(RefusedWorkError, match="a secure sum for the noise"):
        device_charge(asked(lonely))
    with pytest.raises(RefusedWorkError, match="a secure sum for the noise"):
        device_charge(asked(lonely, secure=secure(lonely, noise=None)))


def test_rounds_that_everybody_is_in_are_charged_one_by_one() -> None:
    certain = user(rounds=40)
    first, second = (charge(certain, work_id=f"w{number}", number=number) for number in (1, 2))
    assert first.charge_id != second.charge_id
    assert first.event == second.event == certain.spec.event(1).model_copy(update={"adjacency": "zero_out_one"})


def test_rounds_of_coins_are_charged_all_at_once_and_once() -> None:
    amplified = user(**COINS)
    first, last = (charge(amplified, work_id=f"w{number}", number=number) for number in (1, 40))
    assert first == last == Charge("device, campaign c", amplified.spec.event(40))
    assert charge(amplified, campaign_id="another").charge_id != first.charge_id
    # A wrong answer that it must not be: to pay only for the rounds it is in, and those as cheap as if drawn by chance.
    cheap = amplified.spec.event(4)
    assert epsilon_of([cheap], DELTA) < 0.6 * epsilon_of([first.event], DELTA)


def test_training_that_comes_with_a_question_is_charged_as_training() -> None:
    plain, odd = user(), Query(feature="ink", low=0, high=1)
    assert device_charge(asked(plain, query=odd)) == charge(plain)


def test_more_rounds_than_the_noise_is_for_are_refused() -> None:
    with pytest.raises(RefusedWorkError, match="one of the 40 rounds"):
        device_charge(asked(user(**COINS), number=41))


@given(st.floats(0.7, 4), st.integers(1, 30), st.sampled_from([1.0, 0.5, 0.1]))
@settings(max_examples=25, deadline=None)
def test_a_device_in_all_rounds_is_charged_what_the_campaign_planned_for_each(
    noise: float, rounds: int, rate: float
) -> None:
    planned = user(noise_multiplier=noise, rounds=rounds, sampling_rate=rate)
    charges = [charge(planned, work_id=f"w{number}", number=number) for number in range(1, rounds + 1)]
    once = {each.charge_id: each.event for each in charges}
    charged = epsilon_of(list(once.values()), DELTA)
    assert charged == pytest.approx(epsilon_of([planned.spec.event(rounds)], DELTA))
    assert charged == pytest.approx(epsilon_of([planned.spec.charge(times=rounds)], DELTA))


def test_training_without_user_level_privacy_costs_the_devices_account_nothing() -> None:
    assert device_charge(asked(None)) is None
    assert data_event(asked(None), TASK, "data") is None


@pytest.mark.parametrize(("protects", "is_charged"), [(Protected.DEVICE, True), (Protected.UNIT, False)])
def test_an_answer_that_protects_the_device_is_charged_to_it_and_to_its_data(
    protects: Protected, is_charged: bool
) -> None:
    spec = {"epsilon": 1, "delta": DELTA, "noise_multiplier": 3, "max_grad_norm": 1, "sampling_rate": 0.1}
    spec |= {"steps_per_round": 9, "rounds": 1}
    question = Query(feature="ink", low=0, high=1, protects=protects)
    work = asked(None, kind="analyze", query=question, privacy=spec)
    own, beside = data_event(work, TASK, "data"), device_charge(work)
    assert own is not None
    assert (own.sampling_rate, own.steps) == (1.0, 1)
    assert (beside is not None) == is_charged
    assert beside is None or beside.event.noise_multiplier == 3


# The ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(tmp_path, limit=8.0, device_limit=3.0)
    yield opened
    opened.close()


def test_the_device_has_an_account_of_its_own_that_goes_on_when_its_data_changes(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.reserve("one", dataset_id="january", event=ROUND, beside=whole(4.0, charge_id="device, one"))
    ledger.reserve("two", dataset_id="february", event=None, beside=whole(5.0, charge_id="device, two"))
    both = [whole(4.0).event, whole(5.0).event]
    assert ledger.balance(DEVICE, DELTA) == epsilon_of(both, DELTA)
    assert ledger.balance("january", DELTA) == epsilon_of([ROUND], DELTA)
    assert ledger.balance("february", DELTA) == 0
    told = {(spent.dataset_id, spent.unit): spent for spent in read_balances(tmp_path) or []}
    assert set(told) == {(DEVICE, DEVICE), ("january", "recording")}
    assert told[DEVICE, DEVICE] == PrivacySpent(
        epsilon=epsilon_of(both, DELTA), delta=DELTA, epsilon_limit=3.0, dataset_id=DEVICE, unit=DEVICE
    )


def test_both_accounts_are_charged_or_neither(ledger: Ledger) -> None:
    before = ledger.told()
    with pytest.raises(PrivacyOverspendError, match=r"at most epsilon 3 at delta 1e-05 for this device with all"):
        ledger.reserve("greedy", dataset_id="data", event=ROUND, beside=whole(1.0))
    assert (ledger.balance("data", DELTA), ledger.balance(DEVICE, DELTA), ledger.told()) == (0, 0, before)
    with pytest.raises(PrivacyOverspendError, match=r"at most epsilon 8 at delta 1e-05 for this data"):
        ledger.reserve("greedy", dataset_id="data", event=whole(0.5).event, beside=whole(4.0))
    assert (ledger.balance("data", DELTA), ledger.balance(DEVICE, DELTA), ledger.told()) == (0, 0, before)


def test_a_campaign_paid_at_once_is_charged_once_and_cannot_become_a_dearer_one(ledger: Ledger) -> None:
    for number in range(5):
        ledger.reserve(f"w{number}", dataset_id="data", event=None, beside=whole(4.0, charge_id="device, campaign c"))
    assert ledger.balance(DEVICE, DELTA) == epsilon_of([whole(4.0).event], DELTA)
    with pytest.raises(WorkConflictError):
        ledger.reserve("w5", dataset_id="data", event=None, beside=whole(3.0, charge_id="device, campaign c"))


@given(
    asks=st.lists(
        st.tuples(st.integers(0, 6), st.sampled_from([None, 2.0, 6.0]), st.sampled_from([None, 2.0, 6.0])), max_size=10
    ),
    restarts=st.sets(st.integers(0, 9)),
)
@settings(max_examples=15, deadline=None)
def test_each_account_is_the_accountants_word_on_its_history_and_stays_within_its_limit(
    asks: list[tuple[int, float | None, float | None]], restarts: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    ledger = open_ledger(folder, limit=4.0, device_limit=2.0)
    history: dict[str, dict[str, MechanismEvent]] = {"data": {}, DEVICE: {}}
    for step, (number, own, beside) in enumerate(asks):
        event = None if own is None else whole(own).event
        charged = None if beside is None else whole(beside, charge_id=f"device, w{number}")
        try:
            ledger.reserve(f"w{number}", dataset_id="data", event=event, beside=charged)
        except (PrivacyOverspendError, WorkConflictError):
            pass
        else:
            if event is not None:
                history["data"].setdefault(f"w{number}", event)
            if charged is not None:
                history[DEVICE].setdefault(f"w{number}", charged.event)
        if step in restarts:
            ledger.close()
            ledger = open_ledger(folder, limit=4.0, device_limit=2.0)
        for account, limit in (("data", 4.0), (DEVICE, 2.0)):
            expected = epsilon_of(list(history[account].values()), DELTA)
            assert ledger.balance(account, DELTA) == pytest.approx(expected)
            assert expected <= limit + 1e-6
    told = {spent.dataset_id: spent.epsilon for spent in read_balances(folder) or []}
    assert told == {account: ledger.balance(account, DELTA) for account, events in history.items() if events}
    ledger.close()


@pytest.mark.processes
def test_a_kill_unspends_neither_account(tmp_path: Path) -> None:
    killed_once_reserved(tmp_path, beside='Charge("device, work", event)')
    ledger = counting_ledger(tmp_path)
    assert (ledger.balance("data", DELTA), ledger.balance(DEVICE, DELTA)) == (1, 1)
    ledger.close()


# The worker


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    yield made
    made.close()


def test_work_is_charged_to_the_device_before_its_update_leaves_and_the_result_says_so(device: Device) -> None:
    certain = user(rounds=3).model_dump(mode="json")
    one = device.perform("w1", user_privacy=certain)
    assert one.status is WorkStatus.DONE, one.reason
    assert one.privacy is not None
    assert (one.privacy.dataset_id, one.privacy.unit, one.privacy.epsilon_limit) == (DEVICE, DEVICE, 50.0)
    assert one.privacy.epsilon == pytest.approx(epsilon_of([whole(1.0).event], DELTA))
    assert device.perform("w1", user_privacy=certain).privacy == one.privacy
    two = device.perform("w2", user_privacy=certain, round=2)
    assert two.privacy is not None
    assert two.privacy.epsilon == pytest.approx(epsilon_of([whole(1.0).event] * 2, DELTA))


def test_work_that_would_overspend_the_device_is_refused_and_nothing_of_it_leaves(
    device: Device, tmp_path: Path
) -> None:
    almost_none = user(noise_multiplier=0.05).model_dump(mode="json")
    refused = device.perform("w1", user_privacy=almost_none)
    assert refused.status is WorkStatus.REFUSED
    assert "for this device with all its data" in refused.reason
    assert refused.privacy is None
    assert not (tmp_path / "update").exists()
    assert read_balances(tmp_path / "state") == []


def test_work_that_is_refused_after_it_was_charged_says_what_it_cost(device: Device) -> None:
    # No number may be infinite in what is sent: found after training, when the account has paid.
    broken = {name: np.full_like(value, np.inf) for name, value in MODEL.items()}
    refused = device.perform("w1", model=broken, user_privacy=user().model_dump(mode="json"))
    assert refused.status is WorkStatus.REFUSED
    assert refused.privacy is not None
    assert refused.privacy.epsilon == device.ledger.balance(DEVICE, DELTA) > 0
