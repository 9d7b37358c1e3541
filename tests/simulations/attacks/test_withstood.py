"""Each robust rule withstands what it promises to, in real training; FedAvg, the negative control, does not."""

import pytest

from cloud.aggregation.robust.bulyan import Bulyan
from cloud.aggregation.robust.geometric_median import GeometricMedian
from cloud.aggregation.robust.krum import Krum, MultiKrum
from cloud.aggregation.robust.median import Median
from cloud.aggregation.robust.norm_clipping import NormClipping
from cloud.aggregation.robust.trimmed_mean import TrimmedMean
from cloud.aggregation.rule import RobustRule
from simulations.attacks.data import Backdoor, LabelFlip
from simulations.attacks.updates import Gaussian, Scaling, SignFlip, UpdateAttack
from tests.simulations.attacks.digits import LIARS, Mean, accuracy, digits, rounds

RULES: tuple[RobustRule, ...] = (
    Median(),
    TrimmedMean(LIARS / 15),
    Krum(LIARS),
    MultiKrum(LIARS),
    Bulyan(LIARS),
    GeometricMedian(),
    NormClipping(),
)
UPDATE_ATTACKS: tuple[UpdateAttack, ...] = (SignFlip(strength=4), Scaling(strength=30), Gaussian(strength=20))
BACKDOOR = Backdoor(target=3)
LEARNED, BROKEN = 0.5, 0.3
"""Accuracies: undisturbed training ends at 0.7 to 0.8, guessing at 0.1."""

every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)


@pytest.mark.parametrize("attack", UPDATE_ATTACKS, ids=lambda attack: attack.name)
@every_rule
def test_learns_although_some_lie_about_their_update(rule: RobustRule, attack: UpdateAttack) -> None:
    assert accuracy(rounds(rule, update=attack), digits().test) > LEARNED


@every_rule
def test_learns_although_some_flip_their_labels_and_claim_most_of_the_examples(rule: RobustRule) -> None:
    assert accuracy(rounds(rule, data=LabelFlip()), digits().test) > LEARNED


@every_rule
def test_learns_without_the_backdoor_of_some_who_scale_their_update(rule: RobustRule) -> None:
    model = rounds(rule, data=BACKDOOR, update=Scaling(strength=5))
    assert accuracy(model, digits().test) > LEARNED
    assert accuracy(model, BACKDOOR.triggered(digits().test)) < 0.4


@pytest.mark.parametrize("attack", UPDATE_ATTACKS, ids=lambda attack: attack.name)
def test_fedavg_does_not_survive_lies_about_updates(attack: UpdateAttack) -> None:
    assert accuracy(rounds(Mean(), update=attack), digits().test) < BROKEN


def test_fedavg_does_not_survive_flipped_labels() -> None:
    assert accuracy(rounds(Mean(), data=LabelFlip()), digits().test) < BROKEN


def test_fedavg_learns_the_backdoor() -> None:
    model = rounds(Mean(), data=BACKDOOR, update=Scaling(strength=5))
    assert accuracy(model, BACKDOOR.triggered(digits().test)) > 0.9


def test_fedavg_learns_when_nobody_attacks() -> None:
    assert accuracy(rounds(Mean()), digits().test) > LEARNED
