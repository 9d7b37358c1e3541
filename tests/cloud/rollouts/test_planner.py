"""Plans: who moves, in which order, and who does not and why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.rollouts.errors import InvalidPolicyError
from cloud.rollouts.planner import plan, why_left_out
from cloud.rollouts.values import Policy, RolloutPlan
from tests.cloud.rollouts.values import POLICY, TARGET, candidate, names, plan_for

FRACTIONS = st.lists(st.floats(0.001, 0.999), max_size=5, unique=True).map(lambda some: (*sorted(some), 1.0))


def policy(*fractions: float) -> Policy:
    return Policy(wave_fractions=fractions, soak_s=1, wave_timeout_s=60, failures_max=0, error_rate_max=0.01)


def test_moves_a_fifth_first_and_then_the_rest() -> None:
    waves = plan_for(names(10)).waves
    assert [len(wave) for wave in waves] == [2, 8]


def test_a_small_first_share_still_has_a_device_in_it() -> None:
    assert [len(wave) for wave in plan_for(names(3)).waves] == [1, 2]


def test_a_share_means_its_decimal_not_its_binary_value() -> None:
    assert [len(wave) for wave in plan_for(names(100), policy=policy(0.07, 1.0)).waves] == [7, 93]


def test_one_device_is_one_wave() -> None:
    assert [len(wave) for wave in plan_for(names(1)).waves] == [1]


def test_no_device_is_no_wave() -> None:
    assert plan_for([]).waves == ()


def test_a_device_tagged_canary_goes_first() -> None:
    inventory = [candidate(name, is_canary=name == "d-07") for name in names(10)]
    assert plan(TARGET, POLICY, inventory, generation_floor=0).devices[0] == "d-07"


def test_a_device_that_is_away_is_no_canary() -> None:
    inventory = [candidate(name, is_online=name == "d-03") for name in names(5)]
    assert plan(TARGET, POLICY, inventory, generation_floor=0).devices[0] == "d-03"


def test_another_release_has_another_canary() -> None:
    canaries = {
        plan(
            type(TARGET)(release_id=f"r-{number}", task="digits", task_version="1", opset=17),
            POLICY,
            [candidate(name) for name in names(10)],
            generation_floor=0,
        ).devices[0]
        for number in range(20)
    }
    assert len(canaries) > 1


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"is_revoked": True}, "Its certificate is revoked."),
        ({"opset_max": 0}, "It has not said yet what it can run."),
        ({"opset_max": 16}, "Its runtime serves ONNX opsets up to 16, the release needs 17."),
        ({"tasks": {}}, "It does not have the task digits installed."),
        ({"tasks": {"digits": "0"}}, "Its task digits has version 0, the release needs 1."),
        ({"serves": "r-2", "desired_release_id": "r-2"}, "It serves this release already."),
    ],
)
def test_leaves_out_what_cannot_or_need_not_move_and_says_why(changed: dict[str, object], sentence: str) -> None:
    made = plan(TARGET, POLICY, [candidate("d-00"), candidate("d-01", **changed)], generation_floor=0)
    assert made.devices == ("d-00",)
    assert [(each.device_id, each.reason) for each in made.left_out] == [("d-01", sentence)]


def test_a_device_that_was_asked_for_the_release_and_failed_moves_again() -> None:
    assert why_left_out(TARGET, candidate("d", serves="r-1", desired_release_id="r-2", desired_generation=3)) == ""


def test_a_device_that_serves_the_release_but_was_asked_for_another_since_moves() -> None:
    assert why_left_out(TARGET, candidate("d", serves="r-2", desired_release_id="r-3", desired_generation=3)) == ""


@pytest.mark.parametrize(
    "fractions", [(), (0.5,), (0.5, 0.5, 1.0), (0.0, 1.0), (0.7, 0.2, 1.0), (1.5,), (float("nan"), 1.0)]
)
def test_refuses_shares_that_are_no_waves(fractions: tuple[float, ...]) -> None:
    with pytest.raises(InvalidPolicyError, match="Expected wave fractions"):
        plan_for(names(3), policy=policy(*fractions))


def test_refuses_a_soak_that_no_wave_could_ever_finish() -> None:
    never = Policy(wave_fractions=(1.0,), soak_s=60, wave_timeout_s=60, failures_max=0, error_rate_max=0.01)
    with pytest.raises(InvalidPolicyError, match="above the soak time"):
        plan_for(names(3), policy=never)


@given(count=st.integers(0, 60), fractions=FRACTIONS, seed=st.randoms(use_true_random=False))
def test_every_device_is_in_exactly_one_wave_whatever_the_order_of_the_inventory(
    count: int, fractions: tuple[float, ...], seed: object
) -> None:
    shuffled = names(count)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    made: RolloutPlan = plan_for(shuffled, policy=policy(*fractions))
    assert sorted(made.devices) == names(count)
    assert all(made.waves)
    assert made == plan_for(names(count), policy=policy(*fractions))


@given(generations=st.lists(st.integers(0, 1000), min_size=1, max_size=10), floor=st.integers(0, 1000))
def test_the_generation_is_newer_than_anything_asked_before(generations: list[int], floor: int) -> None:
    inventory = [
        candidate(f"d-{number}", desired_generation=generation) for number, generation in enumerate(generations)
    ]
    assert plan(TARGET, POLICY, inventory, generation_floor=floor).generation > max(*generations, floor)
