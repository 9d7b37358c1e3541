"""Norms and sums of products are those of the gradients nobody made, with any leading dimensions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.training.clipping.products import (
    clip_factors,
    is_direct,
    sequence_squared_norms,
    squared_norms,
    weighted_sum,
)

LEADING = st.lists(st.integers(1, 3), max_size=2).map(tuple)


@settings(max_examples=40, deadline=None)
@given(
    leading=LEADING,
    examples=st.integers(1, 5),
    tokens=st.integers(1, 9),
    wide=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_norms_and_sums_are_those_of_the_gradients(
    leading: tuple[int, ...], examples: int, tokens: int, wide: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randn(*leading, examples, tokens, wide, generator=generator, dtype=torch.float64)
    gradients = torch.randn(*leading, examples, tokens, 4, generator=generator, dtype=torch.float64)
    made = gradients.mT @ activations
    norms = sequence_squared_norms(activations, gradients)
    torch.testing.assert_close(norms, made.square().sum(dim=(-2, -1)))
    weights = clip_factors(norms, max_norm=0.7)
    expected = (made * weights[..., None, None]).sum(dim=-3)
    spread = weights[..., None].expand(*weights.shape, tokens).flatten(-2)
    found = weighted_sum(activations.flatten(-3, -2), gradients.flatten(-3, -2), spread)
    torch.testing.assert_close(found, expected)
    assert (made * weights[..., None, None]).flatten(-2).norm(dim=-1).max() <= 0.7


def test_both_ways_to_a_norm_are_taken() -> None:
    assert is_direct(9, inputs=9, outputs=4)
    assert not is_direct(2, inputs=9, outputs=4)


def test_one_token_needs_two_norms_alone() -> None:
    activations, gradients = torch.randn(2, 5, 7), torch.randn(2, 5, 3)
    torch.testing.assert_close(
        squared_norms(activations, gradients), sequence_squared_norms(activations[:, :, None], gradients[:, :, None])
    )


def test_a_stacked_cohort_is_its_clients_one_by_one() -> None:
    activations, gradients = torch.randn(6, 5, 7), torch.randn(6, 5, 3)
    together = weighted_sum(activations, gradients, clip_factors(squared_norms(activations, gradients), max_norm=1.0))
    for client in range(6):
        alone = clip_factors(squared_norms(activations[client], gradients[client]), max_norm=1.0)
        torch.testing.assert_close(weighted_sum(activations[client], gradients[client], alone), together[client])


@pytest.mark.parametrize("norm", [0.0, 1e-9, 0.5, 2.0])
def test_a_gradient_within_the_bound_stays_and_one_beyond_ends_below_it(norm: float) -> None:
    factor = float(clip_factors(torch.tensor([norm**2], dtype=torch.float64), max_norm=1.0)[0])
    assert factor * norm <= 1
    assert factor == pytest.approx(min(1, 1 / max(norm, 1e-30)), rel=2e-6)
