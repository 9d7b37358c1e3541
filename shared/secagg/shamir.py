"""Shamir's secret sharing (1979) of 32-byte secrets: any `threshold` shares give the secret, fewer give nothing.

Over the integers modulo the smallest prime above 2**256, in Python's own: a cohort needs thousands of products.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33
_COEFFICIENT_BYTES = 48  # Reduced modulo the prime, off from uniform by less than 2**-127.


def split(secret: bytes, *, holders: Sequence[int], threshold: int, seed: bytes) -> dict[int, bytes]:
    """A share for each holder.

    Args:
        secret: 32 bytes.
        holders: Distinct numbers above 0; where the polynomial is evaluated.
        threshold: Shares that give the secret.
        seed: 32 unpredictable bytes, used for nothing else; the same seed gives the same shares.
    """
    assert len(secret) == SECRET_BYTES
    assert 1 <= threshold <= len(holders)
    assert min(holders) > 0, "The share of holder 0 would be the secret."
    stream = Cipher(ChaCha20(seed, bytes(16)), mode=None).encryptor()
    random = stream.update(bytes(_COEFFICIENT_BYTES * (threshold - 1)))
    pieces = [random[start : start + _COEFFICIENT_BYTES] for start in range(0, len(random), _COEFFICIENT_BYTES)]
    coefficients = [int.from_bytes(secret), *(int.from_bytes(piece) % PRIME for piece in pieces)]
    return {holder: _evaluate(coefficients, holder).to_bytes(SHARE_BYTES) for holder in holders}


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret of exactly `threshold` shares; of fewer, or of wrong ones, something else.

    Raises:
        OverflowError: What they give is no secret: a share was wrong.
    """
    holders = tuple(sorted(shares))
    factors = _lagrange_at_zero(holders)
    total = sum(factor * int.from_bytes(shares[holder]) for factor, holder in zip(factors, holders, strict=True))
    return (total % PRIME).to_bytes(SECRET_BYTES)


def _evaluate(coefficients: Sequence[int], at: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * at + coefficient) % PRIME
    return value


@lru_cache(maxsize=4096)
def _lagrange_at_zero(holders: tuple[int, ...]) -> tuple[int, ...]:
    factors = []
    for mine in holders:
        numerator, denominator = 1, 1
        for other in holders:
            if other != mine:
                numerator = numerator * other % PRIME
                denominator = denominator * (other - mine) % PRIME
        factors.append(numerator * pow(denominator, -1, PRIME) % PRIME)
    return tuple(factors)
