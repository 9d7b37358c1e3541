"""Imports of libraries that would load more than the agent uses: what they can do without, they are let do without."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*names: str) -> Iterator[None]:
    """While this is open, an import of these packages fails as if they were not installed.

    For packages that the importing library treats as optional. What is loaded already stays, and what is imported
    later finds them again.
    """
    left_out = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]  # None is Python's own mark for "do not import"
    try:
        yield
    finally:
        for name in left_out:
            del sys.modules[name]
