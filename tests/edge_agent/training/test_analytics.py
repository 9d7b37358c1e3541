"""A device's answer: noised as it says, charged once and refused like training."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent
from dp_accounting.rdp import RdpAccountant

from cloud.training.privacy_plan import plan_privacy
from edge_agent.training.analytics import answer_of
from shared.analytics.errors import UnanswerableQueryError
from shared.analytics.noise import noise_on_each
from shared.analytics.query import SUMS, Protected, Query, Statistic
from shared.messages.events import WorkStatus
from shared.messages.work import SecureStep, SecureWork
from shared.privacy import PrivacySpec
from shared.randomness import SecureRandomness
from shared.secagg.messages import Terms
from shared.tensors import Tensors
from tests.edge_agent.training.device import TASK, Device

QUERY = Query(feature="ink", low=0, high=1, bins=16)
ZEROS: Tensors = {SUMS: np.zeros(QUERY.size, np.float32)}
BUDGET = {"epsilon": 3.0, "delta": 1e-5, "sampling_rate": 1.0, "steps_per_round": 1, "rounds": 1}
SPEC = plan_privacy(**BUDGET, max_grad_norm=QUERY.sensitivity)  # type: ignore[arg-type]  # whole numbers among them
DATA = next(iter(TASK.device_slices().values()))


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path, allow_without_privacy=False)
    yield made
    made.close()


def _answer(key: bytes, query: Query = QUERY, *, noise: float) -> np.ndarray:
    return np.asarray(
        answer_of(query, TASK, DATA.train, noise=noise, randomness=SecureRandomness(key))[SUMS], np.float64
    )


def test_the_answer_is_the_sum_over_the_data_and_noise_of_the_deviation_it_says() -> None:
    query = QUERY.model_copy(update={"bins": 512})
    exact = _answer(b"k" * 32, query, noise=0.0)
    assert exact[0] == len(DATA.train)
    deviation = noise_on_each(query, SPEC, None)
    assert deviation == SPEC.noise_multiplier * query.sensitivity
    draws = [_answer(hashlib.sha256(bytes([number])).digest(), query, noise=deviation) for number in range(40)]
    scores = (np.concatenate(draws) - np.tile(exact, 40)) / deviation
    error = 4 * (2 / len(scores)) ** 0.5
    assert abs(float(scores.var()) - 1) < error
    assert abs(float((scores * 1.05).var()) - 1) > error  # the test would see noise that is 5 % wrong
    assert abs(float((scores / 1.05).var()) - 1) > error


def test_the_noise_costs_what_dp_accounting_says_and_less_noise_would_cost_more() -> None:
    def epsilon(noise: float) -> float:
        accountant = RdpAccountant()
        accountant.compose(GaussianDpEvent(noise))
        return float(accountant.get_epsilon(1e-5))

    assert epsilon(SPEC.noise_multiplier) == pytest.approx(3.0, rel=0.01)
    assert epsilon(SPEC.noise_multiplier * 0.9) > 3.0 * 1.05


def _asks(device: Device, work_id: str, *, spec: PrivacySpec | None = SPEC, **fields: object) -> tuple[WorkStatus, str]:
    privacy = spec.model_dump() if spec else None
    query = fields.pop("query", QUERY)
    done = device.perform(work_id, model=ZEROS, kind="analyze", query=query, privacy=privacy, **fields)
    return done.status, done.reason


def test_it_is_charged_before_it_is_given_and_a_retry_costs_nothing(device: Device) -> None:
    answer = device.does("one", model=ZEROS, kind="analyze", query=QUERY, privacy=SPEC.model_dump())
    spent = device.ledger.balance(DATA.dataset_id, 1e-5)
    assert spent == pytest.approx(3.0, rel=0.01)
    again = device.does("one", model=ZEROS, kind="analyze", query=QUERY, privacy=SPEC.model_dump())
    np.testing.assert_array_equal(again[SUMS], answer[SUMS])
    assert device.ledger.balance(DATA.dataset_id, 1e-5) == spent
    # Another question, or the same again, is another look at the data.
    device.does("two", model=ZEROS, kind="analyze", query=QUERY, privacy=SPEC.model_dump())
    assert device.ledger.balance(DATA.dataset_id, 1e-5) > spent


def test_it_charges_what_it_does_not_what_it_is_told(device: Device) -> None:
    """Work that claims a tiny sampling rate looks at all the data all the same."""
    told = SPEC.model_copy(update={"sampling_rate": 0.001})
    assert _asks(device, "sly", spec=told)[0] is WorkStatus.DONE
    assert device.ledger.balance(DATA.dataset_id, 1e-5) == pytest.approx(3.0, rel=0.01)


def test_it_is_refused_when_it_would_overspend(device: Device) -> None:
    status, reason = _asks(device, "greedy", spec=SPEC.model_copy(update={"noise_multiplier": 0.1}))
    assert status is WorkStatus.REFUSED
    assert "at most epsilon 50" in reason
    assert device.ledger.balance(DATA.dataset_id, 1e-5) == 0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"spec": None}, "an answer with privacy"),
        ({"query": None}, "Expected a question"),
        ({"query": QUERY.model_copy(update={"feature": "age"})}, "among ink, top, bottom, left, right, got 'age'"),
        ({"query": QUERY.model_copy(update={"bins": 17})}, "Expected 'sums' as float32"),
        ({"compression": "int8"}, "in full"),
    ],
)
def test_it_is_refused_with_the_reason(device: Device, fields: dict[str, object], reason: str) -> None:
    status, found = _asks(device, "work", **fields)  # type: ignore[arg-type]  # `spec` among them
    assert status is WorkStatus.REFUSED
    assert reason in found


def test_an_owner_who_wants_secure_sums_gives_no_other_answer(tmp_path: Path) -> None:
    device = Device(tmp_path, allow_without_privacy=True, secure_min=5)
    status, reason = _asks(device, "work")
    device.close()
    assert status is WorkStatus.REFUSED
    assert "secure sums of at least 5" in reason


def _secure(*, clients_min: int, clients_max: int, corrupt: float = 0.0, value_max: float = 2.0**16) -> SecureWork:
    terms = Terms(
        round_id="r", parameters=QUERY.size, clients_min=clients_min, corrupt_share=corrupt, dropout_share=0.1
    )
    return SecureWork(
        step=SecureStep.ADVERTISE, terms=terms, training="w", clients_max=clients_max, value_max=value_max
    )


def test_in_a_secure_sum_the_fewest_honest_devices_make_all_of_the_noise() -> None:
    alone = noise_on_each(QUERY, SPEC, None)
    assert noise_on_each(QUERY, SPEC, _secure(clients_min=9, clients_max=10)) == pytest.approx(alone / 3)
    # Two of ten may work for the coordinator, and know their own noise: eight of the eleven make it.
    corrupted = _secure(clients_min=10, clients_max=12, corrupt=0.1)
    assert noise_on_each(QUERY, SPEC, corrupted) == pytest.approx(alone / 3)
    # Where the terms promise no honest company, the device relies on nobody.
    assert noise_on_each(QUERY, SPEC, _secure(clients_min=3, clients_max=100, corrupt=0.4)) == alone


def test_a_format_that_would_round_the_noise_away_is_refused() -> None:
    with pytest.raises(UnanswerableQueryError, match="steps of at most"):
        noise_on_each(QUERY, SPEC, _secure(clients_min=3, clients_max=1000, value_max=1e8))


def test_to_protect_the_whole_device_it_counts_as_one() -> None:
    query = QUERY.model_copy(update={"protects": Protected.DEVICE, "statistics": (Statistic.MEAN,)})
    sums = _answer(b"k" * 32, query, noise=0.0)
    assert sums[0] == pytest.approx(1)
