"""Ledgers for tests, without a second of imports: processes that tests kill use them too."""

import signal
import subprocess
import sys
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


_RESERVE_AND_HANG = """
import sys, time
from pathlib import Path
from tests.edge_agent.training.ledgers import ROUND, counting_ledger
from edge_agent.training.ledger import Charge
ledger = counting_ledger(Path(sys.argv[1]))
event = ROUND.model_copy(update={{"dataset_id": "device", "unit": "device"}})
ledger.reserve("work", dataset_id="data", event=ROUND, beside={beside})
print("reserved", flush=True)
time.sleep(120)
"""


def killed_once_reserved(state_dir: Path, *, beside: str = "None") -> None:
    """A process reserves an event of "work" for "data", and what `beside` says in Python, and is killed."""
    program = _RESERVE_AND_HANG.format(beside=beside)
    with subprocess.Popen([sys.executable, "-c", program, str(state_dir)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"reserved\n"
        process.send_signal(signal.SIGKILL)
