"""Tells running jobs' processes that a device has answered, so that they need not look every few milliseconds.

A ring is one line on the process' standard input, and only saves time: the news are rows in the database, and a job
looks there by itself too. Rings that come faster than a job listens are one.
"""

import os
import threading
from collections.abc import Callable

_READ_BYTES = 4096


class JobBell:
    """The coordinator's end. Safe to use from several threads."""

    def __init__(self) -> None:
        self._listeners: dict[str, Callable[[], None]] = {}
        self._lock = threading.Lock()

    def connect(self, job_id: str, ring: Callable[[], None]) -> None:
        """From now on `ring` is called for this job, from any thread; it returns at once and raises nothing."""
        with self._lock:
            self._listeners[job_id] = ring

    def disconnect(self, job_id: str) -> None:
        with self._lock:
            self._listeners.pop(job_id, None)

    def ring(self) -> None:
        """Rings all jobs: few run at a time, and each knows what it waits for."""
        with self._lock:
            listeners = tuple(self._listeners.values())
        for listener in listeners:
            listener()


class JobEar:
    """The job's end: waits that a ring cuts short."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def listen(self, descriptor: int) -> None:
        """Hears what comes on this descriptor, in a thread that ends with it."""
        threading.Thread(target=self._hear, args=(descriptor,), name="job-bell", daemon=True).start()

    def ring(self) -> None:
        """Ends the present sleep, or the next one."""
        self._rung.set()

    def sleep(self, seconds: float) -> None:
        """Returns after these seconds, or at a ring, also one since the last time."""
        self._rung.wait(seconds)
        self._rung.clear()

    def _hear(self, descriptor: int) -> None:
        # Not by a file object: a thread that waits in one holds its lock, which the interpreter wants at its end.
        while os.read(descriptor, _READ_BYTES):
            self.ring()
