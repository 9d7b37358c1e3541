"""Signing keys as PEM files (PKCS #8, Ed25519), readable by their owner alone."""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from cloud.releases.errors import RepositoryStateError
from shared.files import write_atomically


def ensure_signer(path: Path) -> CryptoSigner:
    """The signer with this key; makes the key, mode 0600, where there is none yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, CryptoSigner.generate_ed25519().private_bytes, mode=0o600)
    return load_signer(path)


def load_signer(path: Path) -> CryptoSigner:
    """The signer with this key. Raises RepositoryStateError, and never repeats what the file holds."""
    try:
        return CryptoSigner(load_pem_private_key(path.read_bytes(), password=None))
    except OSError as error:
        raise RepositoryStateError(f"Expected a signing key at {path}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RepositoryStateError(f"Expected an unencrypted PEM private key at {path}, got other bytes") from error
