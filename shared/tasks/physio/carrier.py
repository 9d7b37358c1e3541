"""The smartwatch recordings that ship inside the PyPI package `seglearn`, converted once to a safe format.

D. Burns et al., "Shoulder physiotherapy exercise recognition" (arXiv:1802.01489): 140 recordings at 50 Hz, ten
subjects, two arms, seven exercises; BSD licence. The package carries them as a pickled NumPy object. A pickle runs code
when it is read, so it is read only when its SHA-256 is the one known here, and only on a machine that prepares data:
what is kept in the cache, and what devices get, is safetensors.
"""

import hashlib
import importlib.util
import io
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.files import write_atomically
from shared.tasks.errors import TaskDataError
from shared.tasks.storage import content_digest
from shared.tensors import MalformedTensorsError, Tensors, decode, encode

CARRIER_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
"""Of `seglearn/data/watch_dataset.npy` in seglearn 1.2.5."""
CONVERTED_DIGEST = "cdc4ca9bb1c69984cb20e35e230f70874f9a0f7afa3fe688177580ffc8209efa"
"""`content_digest` of the same recordings, converted."""
_INSTALL = "pip install 'fleetlearn[tasks]' (seglearn==1.2.5 carries the recordings)"


@dataclass(frozen=True)
class Recording:
    """One exercise, recorded without a break."""

    number: int
    """Position in the carrier: the unit of privacy."""
    subject: int
    side: str
    """`left` or `right`."""
    label: int
    samples: NDArray[np.float32]
    """`(time, 6)` at 50 Hz: acceleration in g, then rotation in rad/s."""


def recordings(cache_dir: Path) -> list[Recording]:
    """All 140 recordings, from the cache, or converted into it first.

    Raises:
        TaskDataError: The package is not installed, or its file is not the known one.
    """
    path = cache_dir / "physio-recordings.safetensors"
    tensors = _read_cache(path)
    if tensors is None:
        tensors = _converted(_carrier_path())
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may be filling the same cache; what it writes is the same.
        with suppress(FileExistsError, FileNotFoundError):
            write_atomically(path, encode(tensors))
    return _recordings(tensors)


def default_cache_dir() -> Path:
    """`FLEETLEARN_CACHE_DIR`, or `fleetlearn` in the user's XDG cache."""
    if configured := os.environ.get("FLEETLEARN_CACHE_DIR"):
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fleetlearn"


def _read_cache(path: Path) -> Tensors | None:
    """The converted recordings, or nothing where they are absent or not the known ones: then they are made again."""
    try:
        tensors = decode(path.read_bytes())
    except (FileNotFoundError, MalformedTensorsError):
        return None
    return tensors if content_digest(tensors) == CONVERTED_DIGEST else None


def _carrier_path() -> Path:
    # find_spec finds the package without importing it, and with it scikit-learn and SciPy.
    spec = importlib.util.find_spec("seglearn")
    if spec is None or spec.origin is None:
        raise TaskDataError("Expected the package seglearn, which carries physio's data, got none", hint=_INSTALL)
    return Path(spec.origin).parent / "data" / "watch_dataset.npy"


def _converted(carrier: Path) -> Tensors:
    try:
        payload = carrier.read_bytes()
    except OSError as error:
        raise TaskDataError(f"Expected {carrier}, got {error.strerror}", hint=_INSTALL) from error
    if (actual := hashlib.sha256(payload).hexdigest()) != CARRIER_SHA256:
        raise TaskDataError(f"Expected SHA-256 {CARRIER_SHA256} of {carrier}, got {actual}", hint=_INSTALL)
    # Any: the pickle holds a dict of lists and arrays; the checksum above says which ones.
    # The very bytes that were checked, not the file again: it may have changed since.
    data: dict[str, Any] = np.load(io.BytesIO(payload), allow_pickle=True).item()
    return {
        "samples": np.concatenate(data["X"]).astype(np.float32),
        "lengths": np.array([len(samples) for samples in data["X"]], np.int64),
        "subject": np.asarray(data["subject"], np.int64),
        "side": np.asarray(data["side"], np.int64),
        "label": np.asarray(data["y"], np.int64),
    }


def _recordings(tensors: Tensors) -> list[Recording]:
    ends = np.cumsum(np.asarray(tensors["lengths"], np.int64))
    parts = np.split(np.asarray(tensors["samples"], np.float32), ends[:-1])
    return [
        Recording(
            number=number,
            subject=int(tensors["subject"][number]),
            side="right" if tensors["side"][number] else "left",
            label=int(tensors["label"][number]),
            samples=samples,
        )
        for number, samples in enumerate(parts)
    ]
