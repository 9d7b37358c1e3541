"""Gates: what one step stores, whom it asks, and what halts a rollout."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from cloud.rollouts.gates import delivered, refused, resumed, step, wave_state
from cloud.rollouts.values import Ask, Decision, DeviceStep, Observation, Progress
from shared.ids import DeviceId
from shared.lifecycles import ReleaseState, RolloutEvent
from tests.cloud.rollouts.values import POLICY, active, all_idle, failed, idle, names, plan_for

PLAN = plan_for(names(5))
CANARY = PLAN.waves[0][0]
REST = PLAN.waves[1]


def take(progress: Progress, observed: Mapping[DeviceId, Observation], now: float, asks_max: int = 100) -> Decision:
    return step(PLAN, progress, observed, now=now, asks_max=asks_max)


def told(decision: Decision) -> Progress:
    """Every ask of the decision reached the hub."""
    progress = decision.progress
    for ask in decision.asks:
        progress = delivered(progress, ask.device_id)
    return progress


def begun() -> Progress:
    """The canary was asked at 0 s."""
    fresh = Progress.of(PLAN)
    return told(take(fresh, all_idle(fresh), 0))


def with_canary(progress: Progress, observation: Observation) -> Mapping[DeviceId, Observation]:
    return {**all_idle(progress), CANARY: observation}


def canary_healthy() -> tuple[Progress, Mapping[DeviceId, Observation]]:
    """The canary became active at 1 s, was heard from at 7 s, and the rest was asked at 7 s."""
    progress = begun()
    observed = with_canary(progress, active(progress.devices[CANARY], since=1, seen=7))
    return told(take(progress, observed, 7)), observed


def test_asks_only_the_canary_first() -> None:
    fresh = Progress.of(PLAN)
    decision = take(fresh, all_idle(fresh), 0)
    assert decision.asks == (Ask(CANARY, 1),)
    assert decision.event is None
    assert {each.step for device, each in decision.progress.devices.items() if device != CANARY} == {DeviceStep.WAITING}


def test_a_device_in_a_federated_round_is_asked_once_it_has_answered_there() -> None:
    fresh = Progress.of(PLAN)
    in_round = with_canary(fresh, replace(all_idle(fresh)[CANARY], is_in_round=True))
    decision = take(fresh, in_round, 0)
    assert decision.asks == ()
    assert decision.progress.devices[CANARY].step is DeviceStep.WAITING
    assert take(decision.progress, all_idle(fresh), 9).asks == (Ask(CANARY, 1),)


def test_asks_again_until_the_hub_has_it_and_then_no_more() -> None:
    fresh = Progress.of(PLAN)
    first = take(fresh, all_idle(fresh), 0)
    again = take(first.progress, all_idle(fresh), 1)
    assert again.asks == first.asks
    assert take(told(again), all_idle(fresh), 2).asks == ()


def test_the_next_wave_waits_until_the_canary_has_soaked() -> None:
    progress = begun()
    at_soak = with_canary(progress, active(progress.devices[CANARY], since=1, seen=6))
    assert take(progress, at_soak, 50).asks == ()
    after = with_canary(progress, active(progress.devices[CANARY], since=1, seen=6.1))
    assert [ask.device_id for ask in take(progress, after, 50).asks] == list(REST)


def test_a_canary_that_goes_silent_after_the_switch_never_starts_the_next_wave() -> None:
    progress = begun()
    silent = with_canary(progress, active(progress.devices[CANARY], since=1, seen=1))
    decision = take(progress, silent, 61)
    assert decision.event is RolloutEvent.HALT
    assert "not heard from again within 60 s" in decision.reason
    assert decision.asks == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"generation": 0},
        {"generation": 2},
        {"active_release_id": "r-1"},
        {"active_release_id": None},
        {"state": ReleaseState.ACTIVATING},
        {"state": None},
        {"last_seen_at": None},
    ],
)
def test_a_device_that_does_not_serve_what_was_asked_is_not_healthy(changed: dict[str, object]) -> None:
    progress = begun()
    nearly = replace(active(progress.devices[CANARY], since=1, seen=50), **changed)  # type: ignore[arg-type]  # fields
    decision = take(progress, with_canary(progress, nearly), 50)
    assert decision.progress.devices[CANARY].step is DeviceStep.ASKED
    assert decision.asks == ()


def test_a_failed_canary_halts_with_the_devices_own_sentence() -> None:
    progress = begun()
    decision = take(progress, with_canary(progress, failed(progress.devices[CANARY])), 2)
    assert decision.event is RolloutEvent.HALT
    assert decision.reason == f"Wave 1: 1 of 1 devices failed, 0 allowed; {CANARY}: Expected output 1, got 2"
    assert decision.asks == ()


def test_an_old_failure_of_an_older_generation_does_not_count() -> None:
    progress = begun()
    old = replace(failed(progress.devices[CANARY]), generation=0)
    assert take(progress, with_canary(progress, old), 2).event is None


def test_errors_while_serving_fail_the_device() -> None:
    progress = begun()
    bad = replace(active(progress.devices[CANARY], since=1, seen=50), requests=200, errors=3)
    decision = take(progress, with_canary(progress, bad), 50)
    assert decision.event is RolloutEvent.HALT
    assert "It answered 3 of 200 requests with an error." in decision.reason


def test_errors_within_the_allowed_share_do_not() -> None:
    progress = begun()
    fair = replace(active(progress.devices[CANARY], since=1, seen=50), requests=200, errors=2)
    assert take(progress, with_canary(progress, fair), 50).event is None


def test_a_critical_alert_fails_the_device() -> None:
    progress = begun()
    drifting = replace(active(progress.devices[CANARY], since=1, seen=50), critical="gyro-x drifts.")
    assert take(progress, with_canary(progress, drifting), 50).reason.endswith(f"{CANARY}: gyro-x drifts.")


def test_a_wave_that_takes_too_long_halts_and_says_what_was_last_heard() -> None:
    progress = begun()
    slow = replace(active(progress.devices[CANARY], since=1, seen=50), state=ReleaseState.DOWNLOADING)
    assert take(progress, with_canary(progress, slow), 60).event is None
    decision = take(progress, with_canary(progress, slow), 60.1)
    assert decision.event is RolloutEvent.HALT
    assert "It was not active within 60 s; it last said: downloading." in decision.reason


def test_a_device_the_hub_could_not_be_told_about_is_late_and_says_so() -> None:
    fresh = Progress.of(PLAN)
    untold = take(fresh, all_idle(fresh), 0).progress
    assert "It could not be asked within 60 s." in take(untold, all_idle(fresh), 61).reason


def test_a_device_the_hub_refuses_fails() -> None:
    progress = refused(begun(), CANARY, reason="The hub refused.")
    decision = take(progress, all_idle(progress), 1)
    assert decision.event is RolloutEvent.HALT
    assert decision.reason.endswith(f"{CANARY}: The hub refused.")


def test_ends_when_every_wave_is_healthy() -> None:
    progress, observed = canary_healthy()
    observed = {**observed, **{device: active(progress.devices[device], since=8, seen=14) for device in REST}}
    decision = take(progress, observed, 14)
    assert decision.event is RolloutEvent.FINISH
    assert all(wave.finished_at is not None for wave in decision.progress.waves)
    assert {each.step for each in decision.progress.devices.values()} == {DeviceStep.HEALTHY}


def test_a_canary_that_fails_while_the_rest_moves_halts_too() -> None:
    progress, observed = canary_healthy()
    observed = {**observed, CANARY: failed(progress.devices[CANARY], "It crashed in probation.")}
    decision = take(progress, observed, 8)
    assert decision.event is RolloutEvent.HALT
    assert decision.reason.startswith("Wave 1: 1 of 1 devices failed")


def test_as_many_failures_as_allowed_do_not_halt_but_one_more_does() -> None:
    plan = replace(PLAN, policy=replace(POLICY, failures_max=1))
    progress, observed = canary_healthy()
    one = {**observed, REST[0]: failed(progress.devices[REST[0]])}
    assert step(plan, progress, one, now=9, asks_max=100).event is None
    two = {**one, REST[1]: failed(progress.devices[REST[1]])}
    assert step(plan, progress, two, now=9, asks_max=100).event is RolloutEvent.HALT


def test_a_failure_is_allowed_but_a_wave_without_a_healthy_device_is_no_evidence() -> None:
    plan = replace(PLAN, policy=replace(POLICY, failures_max=1))
    progress = begun()
    decision = step(plan, progress, with_canary(progress, failed(progress.devices[CANARY])), now=2, asks_max=100)
    assert decision.event is RolloutEvent.HALT
    assert "none of its devices is healthy" in decision.reason


def test_a_tolerated_late_device_that_comes_after_all_is_healthy() -> None:
    plan = replace(PLAN, policy=replace(POLICY, failures_max=1))
    progress, observed = canary_healthy()
    others = {device: active(progress.devices[device], since=8, seen=14) for device in REST[:-1]}
    late = step(plan, progress, {**observed, **others}, now=68, asks_max=100)
    assert late.event is RolloutEvent.FINISH
    assert late.progress.devices[REST[-1]].step is DeviceStep.LATE
    back = {**observed, **others, REST[-1]: active(progress.devices[REST[-1]], since=70, seen=80)}
    assert step(plan, late.progress, back, now=81, asks_max=100).progress.devices[REST[-1]].step is DeviceStep.HEALTHY


def test_a_device_revoked_before_its_wave_is_left_out_and_the_others_move() -> None:
    progress = begun()
    observed = dict(with_canary(progress, active(progress.devices[CANARY], since=1, seen=7)))
    del observed[REST[0]]
    decision = take(progress, observed, 7)
    assert [ask.device_id for ask in decision.asks] == list(REST[1:])
    assert decision.progress.devices[REST[0]].step is DeviceStep.LEFT_OUT


def test_a_device_asked_for_something_newer_is_never_moved_back() -> None:
    progress = begun()
    observed = dict(with_canary(progress, active(progress.devices[CANARY], since=1, seen=7)))
    observed[REST[0]] = idle(desired_generation=9)
    decision = take(progress, observed, 7)
    assert REST[0] not in [ask.device_id for ask in decision.asks]
    assert "generation 9" in decision.progress.devices[REST[0]].reason


def test_a_canary_wave_in_which_everybody_left_halts() -> None:
    progress = begun()
    decision = take(progress, with_canary(progress, Observation()), 1)
    assert decision.event is RolloutEvent.HALT


def test_tells_the_hub_about_a_bounded_number_of_devices_at_once() -> None:
    _, observed = canary_healthy()
    fresh = begun()
    first = take(fresh, observed, 7, asks_max=3)
    assert [ask.device_id for ask in first.asks] == list(REST[:3])
    second = take(told(first), observed, 8, asks_max=3)
    assert [ask.device_id for ask in second.asks] == list(REST[3:])


def test_resume_asks_a_failed_device_again_under_a_new_generation() -> None:
    progress = begun()
    observed = with_canary(progress, failed(progress.devices[CANARY]))
    halted = take(progress, observed, 2).progress
    again = take(resumed(halted, observed, generation=5, now=100), observed, 100)
    assert again.event is None
    assert again.asks == (Ask(CANARY, 5),)


def test_resume_gives_a_late_device_new_time_under_its_old_generation() -> None:
    progress = begun()
    slow = with_canary(progress, idle(desired_generation=1))
    halted = take(progress, slow, 61).progress
    again = resumed(halted, slow, generation=5, now=100)
    assert take(again, slow, 159).event is None
    assert take(again, slow, 159).asks == ()
    assert take(again, slow, 161).event is RolloutEvent.HALT
    arrived = with_canary(progress, active(progress.devices[CANARY], since=90, seen=106))
    assert [ask.device_id for ask in take(again, arrived, 106).asks] == list(REST)


def test_resume_after_a_canary_failed_late_goes_back_to_its_wave_before_it_asks_anybody_else() -> None:
    progress, observed = canary_healthy()
    plain = replace(
        progress, devices={**progress.devices, REST[0]: replace(progress.devices[REST[0]], step=DeviceStep.WAITING)}
    )
    observed = {**observed, CANARY: failed(progress.devices[CANARY])}
    halted = take(plain, observed, 9).progress
    again = take(resumed(halted, observed, generation=7, now=10), observed, 10)
    assert again.progress.wave == 1
    assert again.asks == (Ask(CANARY, 7),)


def test_shows_how_far_each_wave_is() -> None:
    progress = begun()
    quiet = all_idle(progress)
    soaking = with_canary(progress, active(progress.devices[CANARY], since=1, seen=2))
    assert wave_state(progress, quiet, 1, release_id="r-2") == "moving"
    assert wave_state(progress, soaking, 1, release_id="r-2") == "soaking"
    assert wave_state(progress, quiet, 2, release_id="r-2") == "waiting"
    broken = take(progress, with_canary(progress, failed(progress.devices[CANARY])), 2).progress
    assert wave_state(broken, quiet, 1, release_id="r-2") == "failed"
    after, observed = canary_healthy()
    assert wave_state(after, observed, 1, release_id="r-2") == "healthy"
