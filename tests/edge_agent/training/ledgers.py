"""Ledgers for tests, without a second of imports: processes that tests kill use them too."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent.training.ledger import Ledger
from shared.accountant import epsilon_of
from shared.privacy import MechanismEvent, PrivacyLimits

DELTA = 1e-5
LIMIT = 8.0
KEY = ec.derive_private_key(20_261_126, ec.SECP256R1())
ROUND = MechanismEvent(dataset_id="data", unit="recording", noise_multiplier=2.02, sampling_rate=1.0, steps=1)


def same_limits(limit: float) -> PrivacyLimits:
    """This much for a data set, and for the device with all its data."""
    return PrivacyLimits(epsilon_limit=limit, device_epsilon_limit=limit, delta=DELTA)


def open_ledger(state_dir: Path, *, limit: float = LIMIT, device_limit: float | None = None) -> Ledger:
    limits = same_limits(limit).model_copy(update={"device_epsilon_limit": device_limit or limit})
    return Ledger(state_dir, limits=limits, epsilon_of=epsilon_of, key=KEY)


def counting_ledger(state_dir: Path) -> Ledger:
    """Each event costs one."""
    return Ledger(state_dir, limits=same_limits(1e6), epsilon_of=lambda events, delta: len(events), key=KEY)
