"""Values between processes: tensors through shared memory, what is around them as a few hundred bytes of pickle.

Both ends are the same program, one forked from the other: pickle crosses no trust boundary here.
"""

import io
import mmap
import os
import pickle
import tempfile
from collections.abc import Callable
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import torch

_ALIGNMENT = 64
_SMALLEST_BYTES = 1 << 20


class NotSendableError(Exception):
    """A value that pickle refuses: a class or a function that has no name to find it by. Never leaves the engine."""


Reference = tuple[int, tuple[int, ...], torch.dtype]
"""A tensor's offset in the memory, shape and type."""


class Outbox:
    """Memory that one process writes and others read; what was written is good until the next `pack`."""

    def __init__(self) -> None:
        self._memory = _Memory(_SMALLEST_BYTES)
        self._knows: dict[Connection, _Memory] = {}

    def pack(self, value: object) -> bytes:
        """Copies the value's tensors into the memory; returns what to send beside them.

        Raises:
            NotSendableError: Pickle refuses the value.
        """
        tensors: list[tuple[int, torch.Tensor]] = []
        text = io.BytesIO()
        pickler = _Pickler(text, tensors)
        try:
            pickler.dump(value)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise NotSendableError(str(error)) from error
        if pickler.end > self._memory.bytes:
            self._memory = _Memory(2 * pickler.end)
        for offset, tensor in tensors:
            self._memory.tensor((offset, tuple(tensor.shape), tensor.dtype)).copy_(tensor)
        return text.getvalue()

    def send(self, connection: Connection, packed: bytes) -> None:
        """Sends what `pack` returned, and the memory itself where the other end does not have it yet."""
        is_new = self._knows.get(connection) is not self._memory
        connection.send_bytes(bytes([is_new]) + packed)
        if is_new:
            reduction.send_handle(connection, self._memory.file, None)
            self._knows[connection] = self._memory


class Inbox:
    """The other end of an outbox."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._memory: _Memory | None = None

    def receive(self) -> Any:
        """The next value; its tensors are views of the memory. `Any`: whatever was packed.

        Raises:
            EOFError: The other end is gone.
        """
        message = self._connection.recv_bytes()
        if message[0]:
            self._memory = _Memory.of(reduction.recv_handle(self._connection))
        assert self._memory is not None
        return _Unpickler(io.BytesIO(message[1:]), self._memory.tensor).load()


class _Memory:
    """A file without a name, mapped by all who have it."""

    def __init__(self, size: int) -> None:
        self.bytes = size
        self.file = _unnamed_file()
        os.ftruncate(self.file, size)
        self._map = mmap.mmap(self.file, size)

    @classmethod
    def of(cls, file: int) -> "_Memory":
        memory = cls.__new__(cls)
        memory.file, memory.bytes = file, os.fstat(file).st_size
        memory._map = mmap.mmap(file, memory.bytes)
        return memory

    def tensor(self, reference: Reference) -> torch.Tensor:
        offset, shape, dtype = reference
        count = torch.Size(shape).numel()
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=offset).view(shape)

    def __del__(self) -> None:
        os.close(self.file)


class _Pickler(pickle.Pickler):
    def __init__(self, text: io.BytesIO, tensors: list[tuple[int, torch.Tensor]]) -> None:
        super().__init__(text, protocol=pickle.HIGHEST_PROTOCOL)
        self._tensors = tensors
        self._seen: dict[int, Reference] = {}
        self.end = 0

    def persistent_id(self, value: object) -> Reference | None:
        """Tensors, each once however often the value holds it."""
        if not isinstance(value, torch.Tensor):
            return None
        if id(value) not in self._seen:
            self._seen[id(value)] = (self.end, tuple(value.shape), value.dtype)
            self._tensors.append((self.end, value.detach()))
            self.end += -(-value.numel() * value.element_size() // _ALIGNMENT) * _ALIGNMENT
        return self._seen[id(value)]


class _Unpickler(pickle.Unpickler):
    def __init__(self, text: io.BytesIO, tensor: Callable[[Reference], torch.Tensor]) -> None:
        super().__init__(text)
        self._tensor = tensor

    def persistent_load(self, reference: Reference) -> torch.Tensor:
        return self._tensor(reference)


def _unnamed_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fleetlearn")
    with tempfile.TemporaryFile() as file:  # not Linux: a file that is already deleted
        return os.dup(file.fileno())
