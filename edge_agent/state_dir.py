"""The agent's folder: where everything lies that survives a restart, and the lock that keeps a second agent out.

identity/      key (0600), certificate, the fleet's CA, what enrolment gave
releases/      two slots and release metadata (edge_agent.releases)
training/      the privacy ledger and finished updates (edge_agent.training)
work/          one folder for each piece of work under way
models/        the newest model that a round sent: the next one comes as the difference to it
outbox.sqlite  events that the hub has not acknowledged
release.json   the newest desired release this device accepted: its generation binds
serving.json   where the endpoint listens, while the agent runs
runtime.json   what this device's ONNX Runtime can serve
agent.lock     held while the agent runs
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import AlreadyRunningError, DamagedStateError
from shared.files import write_atomically
from shared.messages.base import MalformedMessageError
from shared.messages.desired import ReportedRelease


@dataclass(frozen=True)
class StateDir:
    """Paths below one folder."""

    path: Path

    @property
    def identity(self) -> Path:
        return self.path / "identity"

    @property
    def releases(self) -> Path:
        return self.path / "releases"

    @property
    def training(self) -> Path:
        return self.path / "training"

    @property
    def training_begun(self) -> Path:
        return self.path / "training-begun.json"

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def models(self) -> Path:
        return self.path / "models"

    @property
    def outbox(self) -> Path:
        return self.path / "outbox.sqlite"

    @property
    def release(self) -> Path:
        return self.path / "release.json"

    @property
    def serving(self) -> Path:
        return self.path / "serving.json"

    @property
    def runtime(self) -> Path:
        return self.path / "runtime.json"

    def make(self) -> None:
        """Makes the folders, for their owner alone: they hold a key and a ledger."""
        for folder in (self.path, self.identity, self.releases, self.training, self.work):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read_release(self) -> ReportedRelease | None:
        """The newest accepted desired release. Raises DamagedStateError: without it an old one could come back."""
        try:
            return ReportedRelease.parse(self.release.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, MalformedMessageError) as error:
            raise DamagedStateError(
                f"Expected the accepted release at {self.release}: {error}",
                hint="Remove the file: the device then accepts whatever release is desired next.",
            ) from error

    def write_release(self, release: ReportedRelease) -> None:
        write_atomically(self.release, release.encode())

    def read_serving(self) -> dict[str, object] | None:
        """What a running agent wrote about its endpoint, or nothing."""
        try:
            document = json.loads(self.serving.read_bytes())
        except (OSError, ValueError):
            return None
        return document if isinstance(document, dict) else None

    def write_serving(self, *, url: str, host: str, port: int) -> None:
        document = {"url": url, "host": host, "port": port, "pid": os.getpid()}
        write_atomically(self.serving, json.dumps(document).encode())


@contextmanager
def locked(state: StateDir) -> Iterator[None]:
    """Holds the folder's lock; the kernel lets go of it however the process ends. Raises AlreadyRunningError."""
    descriptor = os.open(state.path / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(
                f"Expected no other agent on {state.path}, got one that runs",
                hint="Stop it first, or give this device a state directory of its own.",
            ) from None
        yield
    finally:
        os.close(descriptor)


def is_locked(state: StateDir) -> bool:
    """Whether an agent runs on this folder."""
    try:
        with locked(state):
            return False
    except AlreadyRunningError:
        return True
    except OSError:
        return False
