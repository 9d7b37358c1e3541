"""Laws of gates, over fleets in which anything may happen to any device at any time."""

from dataclasses import dataclass, field, replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.rollouts.gates import delivered, refused, resumed, step
from cloud.rollouts.values import SETTLED, Decision, DeviceStep, Observation, Policy, Progress, RolloutPlan
from shared.ids import DeviceId
from shared.lifecycles import ReleaseState, RolloutEvent
from tests.cloud.rollouts.values import TARGET, idle, names, plan_for

STATES = [state for state in ReleaseState if state not in (ReleaseState.ACTIVE, ReleaseState.FAILED)]


@dataclass
class Fleet:
    """Devices that do whatever chance says, and a hub that is sometimes away."""

    plan: RolloutPlan
    chance: Random
    trouble: float
    """How likely anything bad is in one second."""
    observed: dict[DeviceId, Observation] = field(default_factory=dict)
    asked: list[tuple[DeviceId, int]] = field(default_factory=list)
    """What the hub was told, in order."""

    def hear(self, decision: Decision) -> Progress:
        """Takes the asks to the hub, which loses some and refuses a few."""
        progress = decision.progress
        for ask in decision.asks:
            if self.chance.random() < self.trouble:
                continue
            if self.chance.random() < self.trouble / 4:
                progress = refused(progress, ask.device_id, reason="The hub refused.")
                continue
            self.asked.append((ask.device_id, ask.generation))
            if self.chance.random() > self.trouble:  # otherwise the coordinator died before it stored the delivery
                progress = delivered(progress, ask.device_id)
        return progress

    def store(self, decision: Decision, now: float) -> None:
        """The intent to ask goes into the device's read model in the same transaction; requests count from then on."""
        for device, each in decision.progress.devices.items():
            if each.asked_at is not None and device in self.observed:
                seen = self.observed[device]
                newest = max(seen.desired_generation, each.generation)
                self.observed[device] = replace(seen, desired_generation=newest)
                if each.asked_at == now:
                    self.observed[device] = replace(self.observed[device], requests=0, errors=0)

    def live(self, now: float) -> None:
        for device in list(self.observed):
            seen = self.observed[device]
            if self.chance.random() < 0.8:
                seen = replace(seen, last_seen_at=now)
            newest = max((generation for name, generation in self.asked if name == device), default=0)
            self.observed[device] = self._moved(seen, newest, now)
            if self.chance.random() < self.trouble / 10:
                del self.observed[device]

    def _moved(self, seen: Observation, newest: int, now: float) -> Observation:
        if self.chance.random() < self.trouble / 10:
            return replace(seen, desired_generation=seen.desired_generation + 5)
        is_there = seen.generation == newest and seen.state is ReleaseState.ACTIVE
        if newest == 0 or self.chance.random() < 0.5:
            return seen
        if self.chance.random() < self.trouble:
            return replace(seen, generation=newest, state=ReleaseState.FAILED, error="Broken.", state_since=now)
        if self.chance.random() < 0.5:
            return replace(seen, generation=newest, state=self.chance.choice(STATES), state_since=now)
        return replace(
            seen,
            generation=newest,
            state=ReleaseState.ACTIVE,
            active_release_id=TARGET.release_id,
            state_since=seen.state_since if is_there else now,
            requests=100,
            errors=50 if self.chance.random() < self.trouble / 4 else 0,
        )


FLEETS = st.builds(
    lambda count, fractions, failures_max, soak_s, seed, trouble: Fleet(
        plan_for(
            names(count),
            policy=Policy(
                wave_fractions=(*sorted(fractions), 1.0),
                soak_s=soak_s,
                wave_timeout_s=20,
                failures_max=failures_max,
                error_rate_max=0.01,
            ),
        ),
        Random(seed),
        trouble,
    ),
    count=st.integers(1, 12),
    fractions=st.lists(st.sampled_from([0.1, 0.2, 0.4, 0.7]), unique=True, max_size=4),
    failures_max=st.integers(0, 3),
    soak_s=st.sampled_from([0.0, 2.0, 5.0]),
    seed=st.integers(0, 10_000),
    trouble=st.sampled_from([0.0, 0.02, 0.2]),
)


def run(fleet: Fleet, *, resumes: int) -> tuple[Progress, RolloutEvent, list[str]]:
    """Runs a rollout to its end, and checks after each step what must hold at any time."""
    fleet.observed = {device: idle() for device in (*fleet.plan.devices, DeviceId("stranger"))}
    progress, generation, reasons = Progress.of(fleet.plan), fleet.plan.generation, list[str]()
    for now in range((resumes + 1) * (len(fleet.plan.waves) + 1) * 25):
        decision = step(fleet.plan, progress, fleet.observed, now=now, asks_max=3)
        fleet.store(decision, now)
        again = step(fleet.plan, decision.progress, fleet.observed, now=now, asks_max=3)
        _check(fleet, decision, again)
        if decision.event is RolloutEvent.FINISH or (decision.event and resumes == 0):
            return decision.progress, decision.event, [*reasons, decision.reason]
        progress = fleet.hear(decision)
        if decision.event is RolloutEvent.HALT:
            resumes, generation = resumes - 1, generation + 10
            reasons.append(decision.reason)
            progress = resumed(decision.progress, fleet.observed, generation=generation, now=now)
        fleet.live(now)
    raise AssertionError("the rollout never ended")


def _check(fleet: Fleet, decision: Decision, again: Decision) -> None:
    progress = decision.progress
    assert {ask.device_id for ask in decision.asks} <= set(fleet.plan.devices)
    assert set(again.asks) <= set(decision.asks)  # twice in a row asks for nothing else
    assert len(decision.asks) <= 3
    assert not (decision.event and decision.asks)
    for ask in decision.asks:
        wave = progress.devices[ask.device_id].wave
        assert all(each.step in SETTLED for each in progress.devices.values() if each.wave < wave)
        assert fleet.observed[ask.device_id].desired_generation <= ask.generation


@settings(max_examples=150, deadline=None)
@given(fleet=FLEETS, resumes=st.integers(0, 3))
def test_a_rollout_ends_and_only_ever_moves_its_own_devices_forward_one_wave_at_a_time(
    fleet: Fleet, resumes: int
) -> None:
    progress, event, reasons = run(fleet, resumes=resumes)
    for device in fleet.plan.devices:
        generations = [generation for name, generation in fleet.asked if name == device]
        assert generations == sorted(generations)
    if event is RolloutEvent.FINISH:
        failed = [each for each in progress.devices.values() if each.step in (DeviceStep.FAILED, DeviceStep.LATE)]
        assert len(failed) <= fleet.plan.policy.failures_max * len(fleet.plan.waves)
        assert all(each.step in SETTLED for each in progress.devices.values())
    else:
        assert reasons[-1]


@settings(max_examples=40, deadline=None)
@given(fleet=FLEETS)
def test_without_trouble_every_device_gets_there(fleet: Fleet) -> None:
    calm = replace(fleet, trouble=0.0, chance=AlwaysWell(1))
    progress, event, _ = run(calm, resumes=0)
    assert event is RolloutEvent.FINISH
    assert {each.step for each in progress.devices.values()} == {DeviceStep.HEALTHY}
    assert sorted(calm.asked) == sorted((device, 1) for device in calm.plan.devices)


class AlwaysWell(Random):
    """A chance by which every device is heard from, moves at once and becomes active at the first try."""

    def random(self) -> float:
        return 0.6
