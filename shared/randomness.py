"""Randomness for privacy: unpredictable numbers from a keyed stream cipher, as arrays.

An attacker who can predict the noise can subtract it, so neither torch's nor NumPy's generators will do. ChaCha20 under
a fresh key from the operating system is a cryptographically secure generator; a test that fixes the key repeats it.
"""

import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

KEY_BYTES = 32


class SecureRandomness:
    """Uniform and normal numbers from one key.

    Args:
        key: 32 bytes, used for nothing else; `from_system` takes fresh ones, only tests fix them.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"Expected a key of {KEY_BYTES} bytes, got {len(key)}")
        # The nonce may be constant because the key is never used twice.
        self._stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()

    @classmethod
    def from_system(cls) -> "SecureRandomness":
        """A generator that nobody can repeat."""
        return cls(os.urandom(KEY_BYTES))

    def fill(self, numbers: NDArray[np.signedinteger]) -> None:
        """Mixes new random bits into contiguous numbers, whatever they were: uniform, and independent of all before."""
        memory = memoryview(numbers.data).cast("B")
        self._stream.update_into(memory, memory)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """`(count,)` numbers in (0, 1), multiples of 2**-53 plus half of it: never 0 and never 1."""
        words = np.frombuffer(self._stream.update(bytes(8 * count)), np.uint64)
        return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Standard normal numbers, by Box and Muller; each is the scaled sum of four.

        The sum of 2n draws is the defence of Holohan and Braghin (arXiv:2107.10138, 5.1) against attacks that read the
        gradient out of the low bits of floating-point noise; n = 2, as in Opacus' secure mode.
        """
        count = int(np.prod(shape))
        total = sum((self._box_muller(count) for _ in range(4)), np.zeros(count))
        return (total / 2).reshape(shape)

    def _box_muller(self, count: int) -> NDArray[np.float64]:
        radius = np.sqrt(-2 * np.log(self.uniform(count)))
        result: NDArray[np.float64] = radius * np.cos(2 * np.pi * self.uniform(count))
        return result
