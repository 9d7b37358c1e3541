"""Whom a round asks of those who may be: fair where it says so, by utility where it says so, the same each time."""

import numpy as np
import pytest
from scipy import stats

from cloud.campaigns.selection import Selection
from cloud.campaigns.selection_draw import draw
from cloud.campaigns.selection_rules import Histories, History
from cloud.campaigns.selection_utility import Known, UtilitySettings, choose, utilities
from shared.api.campaigns import Draw, SelectionRules
from shared.ids import DeviceId

FLEET = Selection(tuple(DeviceId(f"d-{number:02}") for number in range(12)), {DeviceId("x"): "Offline"})
FLAT = UtilitySettings(exploration=0, exploration_min=0, fairness=0)


def drawn(
    rules: SelectionRules, *, seed: str = "c 1 1", round: int = 1, histories: Histories | None = None
) -> Selection:
    return draw(FLEET, rules, histories or {}, seed=seed, round=round)


def test_without_a_choice_everybody_is_asked_and_nothing_is_said() -> None:
    assert drawn(SelectionRules()) == FLEET
    assert drawn(SelectionRules(cohort=12)) == FLEET


def test_each_is_either_drawn_or_told_why_not() -> None:
    selection = drawn(SelectionRules(cohort=5))
    assert len(selection.chosen) == 5
    assert set(selection.why_chosen) == set(selection.chosen)
    assert set(selection.chosen) | set(selection.excluded) == {*FLEET.chosen, "x"}
    assert selection.excluded[DeviceId("x")] == "Offline"
    assert "Not drawn. 5 of 12, all alike" in selection.excluded.values()


def test_the_same_try_draws_the_same_and_another_one_otherwise() -> None:
    rules = SelectionRules(cohort=5)
    assert drawn(rules) == drawn(rules)
    assert drawn(rules) != drawn(rules, seed="c 1 2")


def test_uniform_draws_are_fair_and_poisson_draws_independent() -> None:
    counts, sizes = np.zeros(12), []
    for number in range(1500):
        for device in drawn(SelectionRules(cohort=3), seed=f"u {number}").chosen:
            counts[FLEET.chosen.index(device)] += 1
        sizes.append(len(drawn(SelectionRules(draw=Draw.POISSON, rate=0.25), seed=f"p {number}").chosen))
    assert stats.chisquare(counts).pvalue > 0.001
    expected = stats.binom(12, 0.25).pmf(np.arange(13)) * 1500
    seen = np.bincount(sizes, minlength=13)
    assert stats.chisquare([*seen[:7], seen[7:].sum()], [*expected[:7], expected[7:].sum()]).pvalue > 0.001


def test_an_operator_reads_each_devices_utility_and_rank() -> None:
    rules = SelectionRules(cohort=2, draw=Draw.UTILITY)
    histories = {
        f"d-{number:02}": History(times=1, last_done=1, examples=10 * (number + 1), loss=1.0, duration_s=5.0)
        for number in range(11)
    }
    selection = drawn(rules, round=40, histories=histories)
    words = {**selection.excluded, **selection.why_chosen}
    assert words[DeviceId("d-10")].endswith("1 of 11")
    assert words[DeviceId("d-11")].endswith("Nothing is known of its utility yet")


def known(learning: list[float], **columns: list[float]) -> Known:
    count = len(learning)
    return Known(
        learning=np.array(learning),
        duration_s=np.array(columns.get("duration_s", [10.0] * count)),
        last_round=np.array(columns.get("last_round", [1] * count), np.int64),
        times=np.array(columns.get("times", [1] * count), np.int64),
    )


def test_who_learned_most_is_worth_most_and_who_is_slow_is_worth_less() -> None:
    worth = utilities(known([1, 2, 4, np.nan]), round=2, settings=FLAT)
    assert worth[0] < worth[1] <= worth[2]
    assert np.isnan(worth[3])
    slow = utilities(known([2, 2, 2], duration_s=[10, 10, 40]), round=2, settings=FLAT)
    assert slow[2] == pytest.approx(slow[0] / 16)


def test_one_outlier_does_not_take_every_round() -> None:
    worth = utilities(known([1.0] * 30 + [1e9]), round=2, settings=FLAT)
    assert worth[30] == pytest.approx(worth[0], rel=0.05) or worth[30] < 2e9 * worth[0]
    chosen = [
        choose(known([1.0] * 40 + [1e9]), 4, round=2, settings=FLAT, generator=np.random.default_rng(n))
        for n in range(50)
    ]
    assert len(set(np.concatenate(chosen).tolist())) > 20


def test_the_long_unasked_come_up_again() -> None:
    worth = utilities(known([2, 2], last_round=[1, 400]), round=400, settings=FLAT)
    assert worth[0] > worth[1]


def test_fairness_prefers_who_took_part_least() -> None:
    fair = UtilitySettings(exploration=0, exploration_min=0, fairness=1)
    chosen = choose(known([9, 9, 1], times=[9, 9, 1]), 1, round=5, settings=fair, generator=np.random.default_rng(0))
    assert chosen.tolist() == [2]
    greedy = choose(known([9, 9, 1], times=[9, 9, 1]), 2, round=5, settings=FLAT, generator=np.random.default_rng(0))
    assert greedy.tolist() == [0, 1]


def test_exploration_starts_high_and_never_ends() -> None:
    candidates = known([1.0] * 100 + [np.nan] * 100)
    settings = UtilitySettings()

    def explored(round: int) -> int:
        chosen = choose(candidates, 50, round=round, settings=settings, generator=np.random.default_rng(round))
        assert len(set(chosen.tolist())) == 50
        return int((chosen >= 100).sum())

    assert explored(1) == 45
    assert explored(500) == 10


def test_a_cohort_is_filled_from_either_side() -> None:
    few_known = known([1.0, 1.0, *[np.nan] * 10])
    few_new = known([*[1.0] * 10, np.nan])
    for candidates in (few_known, few_new):
        chosen = choose(candidates, 8, round=1, settings=UtilitySettings(), generator=np.random.default_rng(1))
        assert len(set(chosen.tolist())) == 8
