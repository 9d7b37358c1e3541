"""Noise is normal, independent, on a grid, and whatever is combined of it hides at least four draws."""

import itertools

import numpy as np
import pytest
import torch

from shared.gaussian import SHARE, SPREAD, GaussianNoise, to_radii
from shared.randomness import SecureRandomness

COUNT = 100_000


def _noise(*, size: int = COUNT, deviation: float = 1.0, key: int = 0) -> torch.Tensor:
    total = torch.zeros(size)
    GaussianNoise(SecureRandomness(bytes([key]) * 32), size=size, standard_deviation=deviation).add_to(total)
    return total


def _is_normal(values: torch.Tensor, deviation: float) -> bool:
    """Whether these pass for normal at 0.1 %, by Kolmogorov and Smirnov; first spread evenly in their grid cells."""
    grid = float(2.0 ** (np.floor(np.log2(deviation)) - 7))
    within = torch.rand(len(values), generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    found = torch.special.ndtr((values.double() + within * grid) / deviation).sort().values
    steps = torch.arange(len(values) + 1, dtype=torch.float64) / len(values)
    distance = torch.maximum(steps[1:] - found, found - steps[:-1]).max()
    return bool(float(distance) * len(values) ** 0.5 < 1.95)


@pytest.mark.parametrize("deviation", [0.037, 1.0, 96.0])
def test_noise_is_normal_and_the_test_would_see_another_scale(deviation: float) -> None:
    values = _noise(deviation=deviation)
    assert _is_normal(values, deviation)
    assert not _is_normal(values, deviation * 1.05)
    assert not _is_normal(values, deviation / 1.05)


def test_tails_are_as_heavy_as_they_should_be() -> None:
    values = _noise(key=1).double()
    for moment, expected in ((4, 3.0), (6, 15.0), (8, 105.0)):
        error = float(values.pow(2 * moment).mean() / COUNT) ** 0.5
        assert abs(float(values.pow(moment).mean()) - expected) < 5 * error


def test_numbers_made_of_the_same_draws_are_independent() -> None:
    """Sixty-one numbers share sixty-four draws: neither they nor their squares are correlated."""
    blocks = [_noise(size=61 * 1024, key=key).view(61, 1024) for key in range(16)]
    numbers = torch.cat(blocks, dim=1).double()
    for values in (numbers, numbers.square()):
        correlations = torch.corrcoef(values) - torch.eye(61)
        assert float(correlations.abs().max()) < 5 / np.sqrt(numbers.shape[1])


def test_numbers_made_of_the_same_pairs_are_independent() -> None:
    """A cosine and its sine lie thirty-two rows and half a row apart."""
    block = _noise(size=61 * 1024, key=2).view(61, 1024).double()
    cosines, sines = block[:29], block[32:].roll(512, dims=1)
    for one, other in ((cosines, sines), (cosines.square(), sines.square())):
        correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
        assert abs(float(correlation)) < 5 / np.sqrt(cosines.numel())


def test_the_mixing_is_orthonormal_and_no_combination_has_fewer_than_four_draws() -> None:
    mixing = np.eye(61, 64) - SPREAD @ SHARE
    np.testing.assert_allclose(mixing @ mixing.T, np.eye(61), atol=1e-12)
    # The draws' weights in a combination are at right angles to these three rows: with three draws or fewer, three of
    # their columns would lie in one plane.
    across = np.linalg.svd(mixing)[2][61:]
    triples = np.array(list(itertools.combinations(range(64), 3)))
    assert np.abs(np.linalg.det(across.T[triples])).min() > 1e-6
    # Each number by itself has a part of every draw.
    assert np.abs(mixing).min() > 1e-5


def test_lengths_are_those_of_two_normal_numbers_up_to_the_farthest() -> None:
    """Whatever the word, u = exp(-length**2 / 2) is |word| / 2**31, or in the tail another number of that range."""
    words = np.array([2**31, -(2**31), 12_345_678, -(2**11), 2**11], np.float64)
    lengths = words.astype(np.float32)
    to_radii(lengths, SecureRandomness(bytes(32)))
    np.testing.assert_allclose(np.exp(-(lengths.astype(np.float64) ** 2) / 2), np.abs(words) / 2**31, rtol=1e-5)
    tail = np.resize(np.array([0, 1, -(2**11) + 1], np.float32), COUNT)
    to_radii(tail, SecureRandomness(bytes(32)))
    numbers = np.sort(np.exp(-(tail.astype(np.float64) ** 2) / 2)) * 2**20
    assert np.isfinite(tail).all()
    assert np.abs(numbers - (np.arange(COUNT) + 0.5) / COUNT).max() * COUNT**0.5 < 1.95
    assert tail.max() > 7


def test_sums_come_out_on_the_grid_that_hides_their_low_bits() -> None:
    total = torch.rand(1000) * 1e-3
    GaussianNoise(SecureRandomness(bytes(32)), size=1000, standard_deviation=1.5).add_to(total)
    assert torch.equal(total * 128, (total * 128).round())


def test_noise_is_added_to_what_is_there() -> None:
    total = torch.full((1000,), 50.0)
    GaussianNoise(SecureRandomness(bytes(32)), size=1000, standard_deviation=1.0).add_to(total)
    assert float(total.mean()) == pytest.approx(50, abs=0.2)


@pytest.mark.parametrize("size", [1, 60, 61, 62, 343, 24_577, 61 * 4096 + 1])
def test_every_number_of_any_size_gets_noise_of_its_own(size: int) -> None:
    values = _noise(size=size, deviation=1e-3, key=3)
    assert (values != 0).float().mean() > 0.9
    if size > 300:
        assert float(values.std()) == pytest.approx(1e-3, rel=5 / np.sqrt(2 * size))


def test_steps_differ_and_only_the_key_repeats_them() -> None:
    noise, again = (GaussianNoise(SecureRandomness(bytes(32)), size=64, standard_deviation=1.0) for _ in range(2))
    first, second, repeated = torch.zeros(64), torch.zeros(64), torch.zeros(64)
    noise.add_to(first)
    noise.add_to(second)
    again.add_to(repeated)
    assert not torch.equal(first, second)
    assert torch.equal(first, repeated)
    assert not torch.equal(first, _noise(size=64, key=1))
