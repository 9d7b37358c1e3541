"""Forked workers that live as long as their engine: one a core, one thread each.

A worker inherits model and data by fork, so they are never copied or sent. It ends when told to, when its connection
closes, or, at the latest a second later, when its parent is gone: nothing outlives a killed run.
"""

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from shared.errors import FleetlearnError
from simulations.engines.errors import WorkerDiedError, WorkerFailedError
from simulations.engines.vector.processes.parcel import Inbox, Outbox

Work = Callable[[Any], object]
"""What a worker makes of a message. `Any`: it is between the engine and its work."""

_PARENT_CHECK_S = 1.0
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _MADV_HUGEPAGE = -1, -4, 14
"""Of malloc.h and sys/mman.h."""
_NEVER = 2**31 - 1
_LARGE_PAGE_BYTES = 2 << 20
_HEAP_BYTES = 256 << 20
"""Address space that is asked to be of large pages."""


class Pool:
    """Worker processes, which do `work` for each message.

    Args:
        work: Called in the workers.
        processes: How many.
    """

    def __init__(self, work: Work, processes: int) -> None:
        self._outbox = Outbox()
        self._workers: list[_Worker] = []
        for _ in range(processes):
            self._workers.append(_fork(work, inherited=[worker.connection for worker in self._workers]))

    def __len__(self) -> int:
        return len(self._workers)

    def run(self, common: object, parts: Sequence[object]) -> list[Any]:
        """What the workers make of `(common, part)`, one part each; tensors are good until the next run.

        Raises:
            WorkerDiedError: A worker is gone; so are the others then.
            FleetlearnError: The work raised it.
            WorkerFailedError: The work raised something else.
            NotSendableError: The message cannot be sent.
        """
        packed = self._outbox.pack((common, parts))
        busy = self._workers[: len(parts)]
        try:
            for number, worker in enumerate(busy):
                worker.start(self._outbox, packed, number)
            return self._replies(busy)
        except BaseException:
            self.close()  # also on Ctrl-C: nobody would read what they still send
            raise

    def _replies(self, busy: Sequence["_Worker"]) -> list[Any]:
        replies: dict[int, Any] = {}
        while len(replies) < len(busy):
            waiting = {worker.connection: number for number, worker in enumerate(busy) if number not in replies}
            for ready in wait(list(waiting)):
                number = waiting[ready]  # type: ignore[index]  # they are the connections that it was given
                replies[number] = _outcome(busy[number].reply(number, len(busy)))
        return [replies[number] for number in range(len(busy))]

    def close(self) -> None:
        """Ends the workers and waits for them."""
        for worker in self._workers:
            worker.end()
        self._workers = []


class _Worker:
    """The parent's end of one."""

    def __init__(self, pid: int, connection: Connection) -> None:
        self.connection = connection
        self._pid = pid
        self._inbox = Inbox(connection)

    def start(self, outbox: Outbox, packed: bytes, number: int) -> None:
        try:
            outbox.send(self.connection, packed)
            self.connection.send_bytes(number.to_bytes(4, "little"))
        except OSError as error:
            raise self._death(number) from error

    def reply(self, number: int, count: int) -> Any:
        """`(is_done, value or error)`."""
        try:
            return self._inbox.receive()
        except (EOFError, OSError) as error:
            raise self._death(number) from error

    def end(self) -> None:
        self.connection.close()
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)  # it holds nothing that a gentler end would save
            self._wait()

    def _death(self, number: int) -> WorkerDiedError:
        return WorkerDiedError(self._pid, number, _said(self._wait()))

    def _wait(self) -> int:
        pid, self._pid = self._pid, 0
        try:
            return os.waitpid(pid, 0)[1]
        except ChildProcessError:
            return 0


def _said(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with code {os.waitstatus_to_exitcode(status)}"


def _outcome(reply: tuple[bool, Any]) -> Any:
    is_done, value = reply
    if not is_done:
        raise value
    return value


def _fork(work: Work, *, inherited: Sequence[Connection]) -> _Worker:
    ours, theirs = Pipe()
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Python warns when there are threads. The worker takes no lock that torch's idle ones could hold: it never
        # opens a parallel region, and glibc's own locks are fork-safe.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        theirs.close()
        return _Worker(pid, ours)
    try:
        for connection in (ours, *inherited):
            connection.close()
        _become_worker()
        _serve(work, theirs, parent)
    finally:
        os._exit(0)


def _become_worker() -> None:
    """One thread, Ctrl-C left to the parent, and freed memory kept: pages are expensive to get again at every step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if sys.platform == "linux":
        _keep_freed_memory(ctypes.CDLL(None))


def _keep_freed_memory(libc: ctypes.CDLL) -> None:
    """Memory comes from one heap that never shrinks, in large pages where the kernel has them.

    Every step frees and takes the same few megabytes: mapped anew each time, the page faults cost more than the
    arithmetic on small models. Large pages saved 15 % on dense models and 3 % on convolutions where it was measured.
    """
    if not hasattr(libc, "mallopt"):  # another C library than glibc
        return
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes, libc.madvise.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    heap = libc.malloc(_HEAP_BYTES)  # not touched, so not used yet
    if heap:
        start = -(-heap // _LARGE_PAGE_BYTES) * _LARGE_PAGE_BYTES
        libc.madvise(start, _HEAP_BYTES - _LARGE_PAGE_BYTES, _MADV_HUGEPAGE)
        libc.free(heap)


def _serve(work: Work, connection: Connection, parent: int) -> None:
    inbox, outbox = Inbox(connection), Outbox()
    while True:
        while not connection.poll(_PARENT_CHECK_S):
            if os.getppid() != parent:
                return
        try:
            common, parts = inbox.receive()
            number = int.from_bytes(connection.recv_bytes(), "little")
            outbox.send(connection, outbox.pack(_done(work, (common, parts[number]))))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def _done(work: Work, message: object) -> tuple[bool, object]:
    try:
        return True, work(message)
    except FleetlearnError as error:
        return False, _sendable(error)
    except Exception as error:
        return False, WorkerFailedError(f"{type(error).__name__}: {error}", traceback.format_exc())


def _sendable(error: FleetlearnError) -> FleetlearnError:
    """The error, or what it says, where its class cannot be made again from its arguments."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        return error
    except Exception:
        return WorkerFailedError(f"{error.code}: {error.message}", traceback.format_exc())
