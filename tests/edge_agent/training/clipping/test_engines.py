"""Book-keeping and Opacus clip the same, whatever the layers, and both as autograd does it one unit at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from edge_agent.training.clipping.bookkeeping import BookKeeping
from edge_agent.training.clipping.chooser import choose_engine
from edge_agent.training.clipping.errors import UnclippableModelError, UnsupportedLayerError
from edge_agent.training.clipping.opacus_engine import OpacusEngine
from edge_agent.training.clipping.units import Units
from tests.edge_agent.training.clipping.models import (
    CLASSES,
    KINDS,
    Scale,
    clipped_sum,
    made,
    relative_difference,
    sums_of,
    unit_gradients,
)

UNIT_SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=6) | st.integers(1, 8).map(lambda n: [1] * n)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=12, deadline=None)
@given(sizes=UNIT_SIZES, clip=st.floats(1e-3, 30.0), seed=st.integers(0, 999))
def test_sums_are_those_of_autograd_and_of_opacus(name: str, sizes: list[int], clip: float, seed: int) -> None:
    units = Units(tuple(sizes))
    model, inputs, labels = made(name, units.examples, seed=seed, dtype=torch.float64)
    ours = sums_of(BookKeeping(model, cross_entropy, max_grad_norm=clip), model, inputs, labels, units)
    expected = clipped_sum(unit_gradients(model, inputs, labels, units), clip)
    assert relative_difference(ours, expected) < 1e-9
    if KINDS[name].opacus_knows:
        opacus = sums_of(OpacusEngine(model, cross_entropy, max_grad_norm=clip), model, inputs, labels, units)
        assert relative_difference(ours, opacus) < 1e-9


@pytest.mark.parametrize("name", KINDS)
def test_in_single_precision_they_agree_to_a_millionth(name: str) -> None:
    units = Units((1,) * 16)
    model, inputs, labels = made(name, 16, seed=1, dtype=torch.float32)
    ours = sums_of(BookKeeping(model, cross_entropy, max_grad_norm=0.1), model, inputs, labels, units)
    expected = clipped_sum(unit_gradients(model, inputs, labels, units), 0.1)
    assert relative_difference(ours, expected) < 1e-6


def test_the_comparison_sees_what_it_must_see() -> None:
    """Negative controls: unclipped, clipped by example, and clipped by another bound."""
    units = Units((3, 1, 2))
    model, inputs, labels = made("words", 6, seed=2, dtype=torch.float64)
    ours = sums_of(BookKeeping(model, cross_entropy, max_grad_norm=0.1), model, inputs, labels, units)
    by_unit = unit_gradients(model, inputs, labels, units)
    assert (by_unit.norm(dim=1) > 0.1).all()
    assert relative_difference(ours, by_unit.sum(dim=0)) > 0.1
    assert relative_difference(ours, clipped_sum(by_unit, 0.10001)) > 1e-6
    by_example = unit_gradients(model, inputs, labels, Units.single(6))
    assert relative_difference(ours, clipped_sum(by_example, 0.1)) > 0.1


def test_examples_of_a_unit_that_cancel_leave_no_error_in_its_norm() -> None:
    """Where a ghost norm is the small difference of large terms: two examples with opposite, large gradients."""
    layer = nn.Linear(400, 400, bias=False)
    inputs = torch.randn(1, 400, generator=torch.Generator().manual_seed(0)).expand(2, -1) * 100
    sign = torch.tensor([1.0, -1.0001])

    def loss(outputs: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        return (outputs.sum(dim=1) * signs).mean()

    total = sums_of(BookKeeping(layer, loss, max_grad_norm=1.0), layer, inputs, sign, Units((2,)))
    assert float(total.norm()) == pytest.approx(1.0, rel=1e-3)


def test_frozen_parameters_are_neither_counted_nor_computed() -> None:
    model, inputs, labels = made("image", 5, seed=3, dtype=torch.float64)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("7"))
    units = Units.single(5)
    ours = sums_of(BookKeeping(model, cross_entropy, max_grad_norm=0.5), model, inputs, labels, units)
    assert len(ours) == 32 * CLASSES + CLASSES
    assert relative_difference(ours, clipped_sum(unit_gradients(model, inputs, labels, units), 0.5)) < 1e-9


def test_no_examples_make_a_sum_of_nothing() -> None:
    model, inputs, labels = made("dense", 1, seed=0, dtype=torch.float32)
    for engine in (BookKeeping, OpacusEngine):
        total = sums_of(engine(model, cross_entropy, max_grad_norm=1.0), model, inputs[:0], labels[:0], Units(()))
        assert not total.any()


def test_a_parameter_without_influence_gets_nothing() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, CLASSES), nn.Linear(4, 2)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            self.unused(inputs)
            logits: torch.Tensor = self.used(inputs)
            return logits

    model, inputs, labels = Unused(), torch.randn(3, 4), torch.tensor([0, 1, 2])
    total = sums_of(BookKeeping(model, cross_entropy, max_grad_norm=1.0), model, inputs, labels, Units.single(3))
    assert total[: 5 * CLASSES].any()
    assert not total[5 * CLASSES :].any()


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.BatchNorm1d(5), "all others of the batch"),
        (nn.BatchNorm1d(5, track_running_stats=False).eval(), "all others of the batch"),
        (nn.InstanceNorm1d(5, track_running_stats=True), "running statistics"),
        (nn.Embedding(5, 2, max_norm=1.0), "max_norm"),
        (nn.Embedding(5, 2, scale_grad_by_freq=True), "counts over the batch"),
    ],
)
def test_layers_that_mix_examples_are_refused_with_the_reason(layer: nn.Module, reason: str) -> None:
    model = nn.Sequential(nn.Linear(3, 5), layer)
    for engine in (BookKeeping, OpacusEngine):
        with pytest.raises(UnclippableModelError, match=reason):
            engine(model, cross_entropy, max_grad_norm=1.0)


def test_a_frozen_batch_norm_mixes_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5).eval(), nn.Linear(5, CLASSES))
    model[1].requires_grad_(False)
    BookKeeping(model, cross_entropy, max_grad_norm=1.0).close()


class Tied(nn.Module):
    """Its output layer uses the embedding's weight, past the embedding's forward."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(CLASSES, 6)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.words(words).mean(dim=1) @ self.words.weight.T
        return logits


def test_a_parameter_used_past_its_layer_is_refused() -> None:
    model, words, labels = Tied(), torch.randint(0, CLASSES, (4, 5)), torch.tensor([0, 1, 2, 0])
    with pytest.raises(UnclippableModelError, match="got 2 uses and 1 calls"):
        choose_engine(model, cross_entropy, max_grad_norm=1.0, inputs=words, labels=labels)


class Transposed(nn.Module):
    """Takes its batch second, as recurrent networks may."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.hidden(inputs.transpose(0, 1)).mean(dim=0)
        return logits


def test_a_batch_that_is_not_first_is_never_taken_for_one() -> None:
    model, inputs, labels = Transposed(), torch.randn(3, 7, 4), torch.tensor([0, 1, 2])
    engine = BookKeeping(model, cross_entropy, max_grad_norm=1.0)
    with pytest.raises(UnsupportedLayerError, match="3 examples first"):
        sums_of(engine, model, inputs, labels, Units.single(3))


def test_the_choice_is_told_and_leaves_no_trace() -> None:
    model, inputs, labels = made("others", 2, seed=0, dtype=torch.float32)
    state = torch.get_rng_state()
    engine = choose_engine(model, cross_entropy, max_grad_norm=1.0, inputs=inputs, labels=labels)
    assert engine.name == "book-keeping"
    assert [note.split()[1] for note in engine.notes] == ["'1'", "'2'"]
    assert "Scale" in engine.notes[0]
    assert torch.equal(torch.get_rng_state(), state)
    engine.close()
    assert not any(layer._forward_hooks for layer in model.modules())


class TwoInputs(nn.Module):
    """A layer from two tensors, which book-keeping does not take, in a model that Opacus does."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Scale(4)
        self.head = nn.Bilinear(4, 4, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.scale(inputs), inputs)
        return logits


def test_what_book_keeping_does_not_take_goes_to_opacus_which_says_why() -> None:
    model, inputs, labels = TwoInputs(), torch.randn(2, 4), torch.tensor([0, 1])
    engine = choose_engine(model, cross_entropy, max_grad_norm=1.0, inputs=inputs, labels=labels)
    assert engine.name == "opacus"
    assert "Bilinear" in engine.notes[0]
    engine.close()
