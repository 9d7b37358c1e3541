"""Noise that the members of a sum make together: enough of it, on vectors that no rounding lets grow."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.privacy import AdaptiveClipping, NoiseBy, UserPrivacySpec
from shared.randomness import SecureRandomness
from shared.secagg.errors import RoundRefusedError, UnencodableUpdateError
from shared.secagg.fixed_point import FixedPoint, Words
from shared.secagg.messages import SummedNoise, Terms
from shared.secagg.noise import SHARE_MIN, check_noise, format_of, noised, share_of
from shared.user_privacy import clipped_with_count, count_scale, deviations, summed_noise
from tests.shared.secagg.cohort import summed

NOISE = SummedNoise(deviation=0.5, norm_max=0.25, clients=5)
SIZE = 50_000


def shares(count: int, noise: SummedNoise = NOISE, *, scale: float = 1.0) -> tuple[FixedPoint, list[Words]]:
    """What so many members with vectors of nothing send; the wrong answer scales their noise."""
    format = format_of(noise, clients_max=8)
    own = noise.model_copy(update={"deviation": noise.deviation * scale})
    members = [
        noised(np.zeros(SIZE), own, format, randomness=SecureRandomness(bytes([key]) * 32)) for key in range(count)
    ]
    return format, members


def is_promised(total: NDArray[np.float64]) -> bool:
    """In four of the deviation's own standard errors."""
    return abs(float(total.std()) / NOISE.deviation - 1) < 4 / math.sqrt(2 * total.size)


def test_the_smallest_sum_has_all_of_the_noise_and_a_larger_one_more() -> None:
    format, members = shares(8)
    assert is_promised(format.decode(summed(members[:5])))
    assert not is_promised(format.decode(summed(members[:4])))
    assert float(format.decode(summed(members)).std()) == pytest.approx(0.5 * math.sqrt(8 / 5), rel=0.02)


def test_two_per_cent_too_little_in_each_share_is_noticed() -> None:
    format, members = shares(5, scale=0.98)
    assert not is_promised(format.decode(summed(members)))


@given(
    size=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
    clients_max=st.integers(5, 2000),
    multiplier=st.floats(0.05, 50),
    length=st.sampled_from([0.5, 1.0]),
)
def test_rounding_lets_no_vector_grow_beyond_its_bound(
    size: int, seed: int, clients_max: int, multiplier: float, length: float
) -> None:
    noise = SummedNoise(deviation=multiplier * 0.25, norm_max=0.25, clients=5)
    format = format_of(noise, clients_max=clients_max)
    vector = np.random.default_rng(seed).normal(size=size)
    vector *= length * 0.25 / float(np.linalg.norm(vector))
    silent = noise.model_copy(update={"deviation": 0.5 * format.step * math.sqrt(noise.clients)})
    words = noised(vector, silent, format, randomness=SecureRandomness(bytes(32)))
    # The noise of half a step is known: what is left is the rounded vector.
    nothing = noised(np.zeros(size), silent, format, randomness=SecureRandomness(bytes(32)))
    rounded = (words - nothing).view(np.int32).astype(object)
    assert sum(number**2 for number in rounded) * format.step**2 <= noise.norm_max**2
    np.testing.assert_allclose(
        rounded.astype(float) * format.step, vector, atol=1.5 * format.step + 2**-19 * noise.norm_max
    )


@pytest.mark.parametrize("vector", [[0.3, 0.0], [math.nan, 0.0], [math.inf, 0.0]])
def test_a_vector_that_was_not_clipped_is_refused(vector: list[float]) -> None:
    with pytest.raises(UnencodableUpdateError, match="Expected a vector clipped to"):
        noised(np.array(vector), NOISE, format_of(NOISE, clients_max=8), randomness=SecureRandomness(bytes(32)))


@given(clients_max=st.integers(1, 10**6), multiplier=st.floats(0.01, 100), norm_max=st.floats(1e-6, 1e3))
def test_no_sum_overflows_and_no_share_is_too_coarse(clients_max: int, multiplier: float, norm_max: float) -> None:
    noise = SummedNoise(deviation=multiplier * norm_max, norm_max=norm_max, clients=max(1, clients_max // 2))
    try:
        format = format_of(noise, clients_max=clients_max)
    except RoundRefusedError:
        return
    assert share_of(noise) / format.step >= SHARE_MIN
    assert clients_max * (norm_max / format.step + 16 * share_of(noise) / format.step + 1) <= 2**31


def test_a_device_insists_that_the_surely_honest_make_all_of_the_noise() -> None:
    terms = Terms(round_id="r", parameters=1, clients_min=7, corrupt_share=0.2, noise=NOISE)
    check_noise(terms, clients_max=14)  # two may work for the server, five are left
    with pytest.raises(
        RoundRefusedError, match="Expected noise that 4 devices make, as many as are surely honest, got 5"
    ):
        check_noise(terms, clients_max=15)


def test_the_noise_is_in_what_all_devices_sign_and_older_devices_know_terms_without() -> None:
    terms = Terms(round_id="r", parameters=1, clients_min=3)
    noisy = terms.model_copy(update={"noise": NOISE})
    assert terms.digest != Terms.model_validate(noisy.model_dump()).digest
    # As it was before there was noise.
    assert terms.digest.hex() == "7de154546f37058413d450bf32140a8e23c635157765aa7cb35d9fb7bbaebccb"


def spec(adaptive: AdaptiveClipping | None) -> UserPrivacySpec:
    return UserPrivacySpec(
        epsilon=1, delta=1e-5, noise_multiplier=0.8, clip_norm=0.5, adaptive=adaptive, sampling_rate=1,
        expected_clients=8, rounds=4, noise_by=NoiseBy.CLIENTS, noise_clients_min=5,
    )  # fmt: skip


@pytest.mark.parametrize("adaptive", [None, AdaptiveClipping(count_noise=0.2)], ids=["fixed", "adaptive"])
@given(length=st.floats(0, 10))
def test_update_and_count_together_are_within_what_the_noise_hides(
    adaptive: AdaptiveClipping | None, length: float
) -> None:
    asked = spec(adaptive)
    noise = summed_noise(asked, 0.5)
    assert noise is not None
    vector = clipped_with_count(np.array([length, 0, 0], np.float32), asked, 0.5)
    assert float(np.linalg.norm(vector)) <= noise.norm_max * (1 + 1e-12)
    assert noise.deviation / noise.norm_max == pytest.approx(0.8)
    if adaptive:
        of_sum, of_count = deviations(asked, 0.5)
        assert vector[-1] / count_scale(asked, 0.5) == pytest.approx(0.5 if length <= 0.5 else -0.5)
        assert noise.deviation / count_scale(asked, 0.5) == pytest.approx(of_count)
        assert noise.deviation == of_sum
