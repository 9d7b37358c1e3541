"""Objects as differences to others, for devices that name what they have; the newest few stay in memory.

All devices of a round ask for the same difference, so it is made once, by one thread while the others wait.
"""

from collections import OrderedDict
from threading import Lock

from cloud.blobs.store import BlobStore, UnknownObjectError
from shared.compression.exact_delta import delta_between
from shared.ids import Digest

KEPT_MAX = 4
OBJECT_BYTES_MAX = 64 * 1024 * 1024
"""Larger objects travel whole: making a difference takes several times their memory."""


class Deltas:
    """Makes and remembers differences; safe to use from several threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Digest, Digest], bytes | None] = OrderedDict()
        self._lock = Lock()

    def between(self, blobs: BlobStore, *, base: Digest, target: Digest) -> bytes:
        """What makes the target of the base (`shared.compression.exact_delta`).

        Raises UnknownObjectError where there is none: other lengths, too large, or it would save nothing.
        """
        with self._lock:
            if (base, target) not in self._kept:
                self._kept[base, target] = _made(blobs, base=base, target=target)
                while len(self._kept) > KEPT_MAX:
                    self._kept.popitem(last=False)
            self._kept.move_to_end((base, target))
            delta = self._kept[base, target]
        if delta is None:
            raise UnknownObjectError(f"Expected a base to which {target} is a small difference, got {base}")
        return delta


def _made(blobs: BlobStore, *, base: Digest, target: Digest) -> bytes | None:
    """None, which is remembered too, where there is no difference that saves anything."""
    size_bytes = blobs.size(target)
    if blobs.size(base) == size_bytes <= OBJECT_BYTES_MAX:
        delta = delta_between(blobs.get(base), blobs.get(target))
        if delta is not None and len(delta) < size_bytes:
            return delta
    return None
