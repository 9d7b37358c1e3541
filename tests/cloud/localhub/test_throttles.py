"""The throttles of tiers, the quota of a day, and injected faults: laws without a clock, a socket or a die."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.localhub.errors import ServiceError
from cloud.localhub.faults import Fault, Faults, Kind, form, parse_faults, parse_toml, refusal
from cloud.localhub.throttles import BURST_S, QUEUE_S, Operation, Plan, Quota, Refuse, Throttle, Tier, Wait, parts

_STEPS = st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 20)), min_size=1, max_size=60)


@given(rate=st.floats(0.1, 100), steps=_STEPS)
def test_over_any_time_no_more_passes_than_the_rate_and_the_burst(
    rate: float, steps: list[tuple[float, float]]
) -> None:
    throttle, now, passed = Throttle(rate), 0.0, []
    for pause_s, cost in steps:
        now += pause_s
        answer = throttle.ask(now=now, cost=cost)
        if isinstance(answer, Wait):
            passed.append((now + answer.seconds, cost))
    for start, _ in passed:
        for end, _ in passed:
            used = sum(cost for at, cost in passed if start <= at <= end)
            largest = max(cost for _, cost in passed)
            assert end < start or used <= rate * (end - start + BURST_S) + largest + 1e-6


@given(rate=st.floats(0.1, 100), count=st.integers(1, 200))
def test_who_keeps_to_the_rate_never_waits(rate: float, count: int) -> None:
    throttle = Throttle(rate)
    assert all(throttle.ask(now=number / rate) == Wait(0.0) for number in range(count))


@given(steps=_STEPS)
def test_nobody_waits_longer_than_the_queue_and_who_comes_back_when_told_passes(
    steps: list[tuple[float, float]],
) -> None:
    throttle, now = Throttle(1.0), 0.0
    for pause_s, cost in steps:
        now += pause_s
        answer = throttle.ask(now=now, cost=cost)
        if isinstance(answer, Wait):
            assert answer.seconds <= QUEUE_S
        else:
            now += answer.retry_after_s + 1e-6
            assert isinstance(throttle.ask(now=now, cost=cost), Wait)


def test_a_burst_passes_then_some_wait_then_the_next_is_refused() -> None:
    throttle = Throttle(1.0)
    answers = [throttle.ask(now=0.0) for _ in range(72)]
    assert answers[:60] == [Wait(0.0)] * 60
    assert answers[60:70] == [Wait(float(number)) for number in range(1, 11)]
    assert answers[70:] == [Refuse(1.0)] * 2


@pytest.mark.parametrize(
    ("plan", "operation", "per_minute"),
    [
        (Plan(Tier.F1), Operation.QUERY, 20),
        (Plan(Tier.S1), Operation.SEND, 100 * 60),
        (Plan(Tier.S1, 9), Operation.SEND, 108 * 60),
        (Plan(Tier.S1, 2), Operation.REGISTRY, 200),
        (Plan(Tier.S2, 2), Operation.CONNECT, 240 * 60),
        (Plan(Tier.S2), Operation.METHOD, 120 * 60),
        (Plan(Tier.S2, 20), Operation.TWIN_UPDATE, 100 * 60),
        (Plan(Tier.S3), Operation.SEND, 6_000 * 60),
        (Plan(Tier.S3), Operation.QUERY, 1_000),
        (Plan(Tier.S3, 3), Operation.CONFIGURATION, 60),
    ],
)
def test_rates_are_those_of_azures_table(plan: Plan, operation: Operation, per_minute: float) -> None:
    assert plan.rates()[operation] * 60 == pytest.approx(per_minute)
    assert plan.rates().keys() == set(Operation)


def test_the_quota_is_of_a_day_and_counts_parts() -> None:
    free, paid = Plan(Tier.F1), Plan(Tier.S1, 2)
    assert (free.messages_a_day, paid.messages_a_day) == (8_000, 800_000)
    assert [parts(size, part_bytes=free.meter_bytes) for size in (0, 512, 513)] == [1, 1, 2]
    quota = Quota(3)
    assert [quota.take(number, now=86_400.0) for number in (2, 2, 1, 1)] == [True, False, True, False]
    assert quota.take(3, now=2 * 86_400.0)


def test_faults_strike_whom_they_name_as_often_as_they_say() -> None:
    faults = Faults(
        parse_toml(
            """
            [[faults]]
            on = "send"
            device = "press-*"
            kind = "disconnect"
            probability = 0.5
            times = 2

            [[faults]]
            on = "*"
            kind = "delay"
            delay_s = 0.1
            """
        )
    )
    cut, slow = faults.faults
    assert faults.choose(Operation.SEND, "press-1", draw=lambda: 0.4) == [cut, slow]
    assert faults.choose(Operation.SEND, "press-1", draw=lambda: 0.5) == [slow]
    assert faults.choose(Operation.SEND, "other", draw=lambda: 0.0) == [slow]
    assert faults.choose(Operation.QUERY, "", draw=lambda: 0.0) == [slow]
    assert faults.choose(Operation.SEND, "press-2", draw=lambda: 0.0) == [cut, slow]
    assert faults.choose(Operation.SEND, "press-2", draw=lambda: 0.0) == [slow]
    assert parse_faults([form(fault) for fault in faults.faults]) == faults.faults


@pytest.mark.parametrize(("status", "name"), [(429, "ThrottlingException"), (500, "ServerError"), (503, "ServiceUn")])
def test_a_refusal_has_the_status_it_was_told(status: int, name: str) -> None:
    error = refusal(Fault("*", Kind.REFUSE, status=status))
    assert (error.status, error.number) == (status, status * 1000 + 1)
    assert error.name.startswith(name)


@pytest.mark.parametrize(
    "text",
    [
        "[[faults",
        "other = 1",
        "faults = 3",
        "[[faults]]\nkind = 'drop'",
        "[[faults]]\non = 'lunch'\nkind = 'drop'",
        "[[faults]]\non = 'send'\nkind = 'melt'",
        "[[faults]]\non = 'send'\nkind = 'drop'\ncolour = 1",
        "[[faults]]\non = 'send'\nkind = 'drop'\nprobability = 2",
        "[[faults]]\non = 'send'\nkind = 'delay'\ndelay_s = -1",
        "[[faults]]\non = 'send'\nkind = 'refuse'\nstatus = 404",
        "[[faults]]\non = 'send'\nkind = 'drop'\ntimes = -1",
        "[[faults]]\non = 'send'\nkind = 'drop'\ndevice = 3",
        "[[faults]]\non = 'send'\nkind = 'drop'\n" * 101,
    ],
)
def test_a_file_that_is_wrong_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ServiceError, match="Expected"):
        parse_toml(text)


def test_a_large_operation_passes_an_idle_throttle_however_slow() -> None:
    assert Throttle(0.01).ask(now=0.0, cost=10.0) == Wait(0.0)
    assert math.isclose(Throttle(1.0).ask(now=0.0, cost=200.0).seconds, 0.0)  # type: ignore[union-attr]  # it is a Wait
