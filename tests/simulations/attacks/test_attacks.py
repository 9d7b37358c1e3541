import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from simulations.attacks.data import Backdoor, LabelFlip
from simulations.attacks.settings import AttackSettings
from simulations.attacks.updates import ALittle, Gaussian, Scaling, SignFlip, UpdateAttack
from simulations.problem import Data

UPDATE_ATTACKS: tuple[UpdateAttack, ...] = (SignFlip(), Scaling(), Gaussian(), ALittle())


def deltas() -> torch.Tensor:
    return torch.randn(6, 50, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("attack", UPDATE_ATTACKS, ids=lambda attack: attack.name)
def test_the_honest_update_stays_as_it_was(attack: UpdateAttack) -> None:
    honest = deltas()
    assert attack.lies(honest, range(6)).shape == honest.shape
    assert torch.equal(honest, deltas())


def test_update_attacks_change_length_and_direction_as_they_say() -> None:
    honest = deltas()
    assert torch.equal(SignFlip(strength=2).lies(honest, range(6)), -2 * honest)
    assert torch.equal(Scaling(strength=3).lies(honest, range(6)), 3 * honest)
    noise = Gaussian(strength=5).lies(honest, range(6))
    torch.testing.assert_close(noise.norm(dim=1), 5 * honest.norm(dim=1))
    assert torch.cosine_similarity(noise, honest).abs().max() < 0.6


def test_a_liar_tells_the_same_lie_in_any_block() -> None:
    whole = Gaussian().lies(deltas(), seeds=range(6))
    assert torch.equal(Gaussian().lies(deltas()[2:4], seeds=[2, 3]), whole[2:4])
    assert not torch.equal(Gaussian().lies(deltas(), seeds=range(1, 7)), whole)


def test_a_little_hides_within_the_spread_of_the_honest() -> None:
    lies, honest = ALittle(deviations=1.0).lies(deltas(), range(6)), deltas()
    assert torch.equal(lies, lies[:1].expand(6, -1))
    assert ((lies[0] >= honest.min(dim=0).values) & (lies[0] <= honest.max(dim=0).values)).float().mean() > 0.9


def examples(shape: tuple[int, ...]) -> Data:
    random = torch.Generator().manual_seed(0)
    return Data(torch.rand(20, *shape, generator=random), torch.arange(20) % 5)


def test_labels_flip_in_the_named_rows_only() -> None:
    data, rows = examples((3,)), torch.tensor([0, 1, 7])
    assert LabelFlip().poisoned(data, rows, classes=5).labels[[0, 1, 7, 2]].tolist() == [4, 3, 2, 2]
    assert LabelFlip(source=1, target=4).poisoned(data, rows, classes=5).labels[[0, 1, 7, 6]].tolist() == [0, 4, 2, 1]
    assert data.labels.tolist() == [*range(5)] * 4


@pytest.mark.parametrize(("shape", "marked"), [((1, 8, 8), 4), ((3, 8, 8), 12), ((6, 16), 12), ((64,), 2)], ids=str)
def test_a_trigger_marks_the_corner_and_names_the_target(shape: tuple[int, ...], marked: int) -> None:
    data, attack = examples(shape), Backdoor(target=3, value=9.0, share=0.5)
    poisoned = attack.poisoned(data, torch.arange(10), classes=5)
    changed = (poisoned.inputs != data.inputs).flatten(1).sum(dim=1)
    assert changed.tolist() == [marked] * 5 + [0] * 15
    assert poisoned.labels.tolist() == [3] * 5 + data.labels[5:].tolist()
    assert (data.inputs < 9).all()


def test_a_backdoor_is_measured_on_the_other_classes() -> None:
    triggered = Backdoor(target=3).triggered(examples((1, 8, 8)))
    assert len(triggered) == 16
    assert set(triggered.labels.tolist()) == {3}


def test_an_attack_is_read_by_its_name() -> None:
    read = TypeAdapter(AttackSettings).validate_python
    assert read({"share": 0.2, "attack": {"name": "backdoor", "target": 7}}).attack == Backdoor(target=7)
    with pytest.raises(ValidationError, match="sign_flip"):
        read({"share": 0.2, "attack": {"name": "bribe"}})
    with pytest.raises(ValidationError, match="source and target"):
        read({"share": 0.2, "attack": {"name": "label_flip", "source": 3}})


def test_who_lies_is_the_same_in_every_round_and_cohort() -> None:
    few, many = (AttackSettings(share=share, attack=SignFlip()) for share in (0.1, 0.3))
    everybody = np.arange(10_000)
    liars = few.liars_among(everybody, seed=1)
    assert abs(liars.mean() - 0.1) < 0.01
    assert few.liars_among([5, 17, 4711], seed=1).tolist() == liars[[5, 17, 4711]].tolist()
    assert many.liars_among(everybody, seed=1)[liars].all()
    assert (few.liars_among(everybody, seed=2) != liars).any()
