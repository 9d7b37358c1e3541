"""Numbers for privacy: distributed as they should be, repeatable only by who has the key."""

import numpy as np
import pytest

from shared.randomness import SecureRandomness

COUNT = 100_000


def test_uniform_numbers_fill_the_open_interval_evenly() -> None:
    numbers = SecureRandomness(bytes(32)).uniform(COUNT)
    assert 0 < numbers.min() < 1e-3
    assert 1 - 1e-3 < numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
    chi_squared = float(((counts - COUNT / 20) ** 2 / (COUNT / 20)).sum())
    assert chi_squared < 43.8  # 99.9 % of 19 degrees of freedom


def test_normal_numbers_have_the_moments_of_the_standard_normal() -> None:
    numbers = SecureRandomness(bytes([1]) * 32).normal((COUNT // 100, 100))
    assert numbers.shape == (COUNT // 100, 100)
    assert abs(numbers.mean()) < 4 / np.sqrt(COUNT)
    assert abs(numbers.std() - 1) < 4 / np.sqrt(2 * COUNT)
    assert abs((numbers**4).mean() - 3) < 4 * np.sqrt(96 / COUNT)


def test_bits_are_even_and_do_not_depend_on_what_was_there() -> None:
    numbers = np.zeros((4, COUNT // 4), np.int64)
    SecureRandomness(bytes(32)).fill(numbers)
    ones = np.unpackbits(numbers.view(np.uint8)).reshape(-1, 64).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / np.sqrt(COUNT)


def test_draws_of_one_generator_differ_and_its_key_repeats_them() -> None:
    generator, again = SecureRandomness(bytes(32)), SecureRandomness(bytes(32))
    first = generator.normal((8,))
    assert not np.allclose(first, generator.normal((8,)))
    np.testing.assert_array_equal(first, again.normal((8,)))
    assert not np.allclose(SecureRandomness.from_system().normal((8,)), SecureRandomness.from_system().normal((8,)))


def test_refuses_a_short_key() -> None:
    with pytest.raises(ValueError, match="32 bytes, got 16"):
        SecureRandomness(bytes(16))
