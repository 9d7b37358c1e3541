"""Deals a task's natural slices of data to devices, like cards."""

from collections.abc import Sequence

from shared.tasks.errors import TaskDataError


def deal(slices: Sequence[str], *, devices: int) -> list[tuple[str, ...]]:
    """Which slices each device gets, round robin, each slice once. Raises TaskDataError when there are too few."""
    if not 1 <= devices <= len(slices):
        raise TaskDataError(f"Expected 1 to {len(slices)} devices, one slice of data each at least, got {devices}")
    return [tuple(slices[first::devices]) for first in range(devices)]


def chosen(slices: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The wanted slices, checked against the known ones. Raises TaskDataError."""
    if unknown := [name for name in slices if name not in known]:
        raise TaskDataError(f"Expected slices among {', '.join(known)}, got {unknown[0]!r}")
    if not slices or len(set(slices)) != len(slices):
        raise TaskDataError(f"Expected one or more different slices, got {list(slices)}")
    return tuple(slices)
