"""Keys, sealed shares and masks: X25519, HKDF-SHA256, ChaCha20-Poly1305, ChaCha20 (RFC 7748, 5869, 8439).

Every key is derived for one purpose, round and direction, and used once; so nonces are zero.
"""

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.secagg.errors import RoundRefusedError
from shared.secagg.fixed_point import Words

KEY_BYTES = 32
_NONCE = bytes(12)


def public_key(private: bytes) -> bytes:
    """The public half of 32 random bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agreed_key(private: bytes, public: bytes, *, purpose: str) -> bytes:
    """32 bytes that both ends of a pair derive, and nobody else. Raises RoundRefusedError for a key of low order."""
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise RoundRefusedError(f"Expected an X25519 public key, got {len(public)} other bytes") from error
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose.encode()).derive(shared)


def derived(seed: bytes, purpose: str) -> bytes:
    """32 bytes for this purpose, out of 32 random ones."""
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose.encode()).derive(seed)


def seal(key: bytes, plaintext: bytes, *, bound_to: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(_NONCE, plaintext, bound_to)


def unseal(key: bytes, ciphertext: bytes, *, bound_to: bytes) -> bytes:
    """The plaintext. Raises RoundRefusedError."""
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, ciphertext, bound_to)
    except InvalidTag as error:
        raise RoundRefusedError("Expected shares sealed by the peer for this round, got other bytes") from error


def mask(seed: bytes, length: int) -> Words:
    """`(length,)` uniform words that this seed gives."""
    stream = Cipher(ChaCha20(seed, bytes(16)), mode=None).encryptor()
    return np.frombuffer(stream.update(bytes(4 * length)), "<u4")
