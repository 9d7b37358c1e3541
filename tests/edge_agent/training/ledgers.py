"""Ledgers for tests, without a second of imports: processes that tests kill use them too."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent.training.ledger import Ledger
from shared.accountant import epsilon_of
from shared.privacy import MechanismEvent

DELTA = 1e-5
LIMIT = 8.0
KEY = ec.derive_private_key(20_261_126, ec.SECP256R1())
ROUND = MechanismEvent(dataset_id="data", unit="recording", noise_multiplier=2.02, sampling_rate=1.0, steps=1)


def open_ledger(state_dir: Path, *, limit: float = LIMIT) -> Ledger:
    return Ledger(state_dir, epsilon_limit=limit, delta=DELTA, epsilon_of=epsilon_of, key=KEY)


def counting_ledger(state_dir: Path) -> Ledger:
    """Each event costs one."""
    return Ledger(state_dir, epsilon_limit=1e6, delta=DELTA, epsilon_of=lambda events, delta: len(events), key=KEY)
