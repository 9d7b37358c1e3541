"""Finds installed tasks by entry point, in the group `fleetlearn.tasks`.

Light: loading a reference task imports neither torch nor any data library, so an agent can call this at its start.
"""

from importlib.metadata import EntryPoint, entry_points

import structlog

from shared.tasks.errors import TaskDataError, UnknownTaskError
from shared.tasks.task import Task

__all__ = ["GROUP", "TaskDataError", "UnknownTaskError", "installed_tasks", "load_task"]

GROUP = "fleetlearn.tasks"

_loaded: dict[str, Task] = {}
"""Tasks that were asked for: Python keeps their modules too, and reading all entry points takes 10 ms each time."""
_log = structlog.get_logger()


def load_task(name: str) -> Task:
    """The installed task of this name. Raises UnknownTaskError, naming what is installed."""
    if (known := _loaded.get(name)) is not None:
        return known
    points = _entry_points()
    if name not in points:
        raise UnknownTaskError(
            f"Expected an installed task ({', '.join(sorted(points)) or 'none is'}), got {name[:80]!r}",
            hint=f"Install the package that brings it: one with an entry point in the group {GROUP!r}.",
        )
    _loaded[name] = _load(points[name])
    return _loaded[name]


def installed_tasks() -> dict[str, str]:
    """Name and version of every task that loads on this machine, sorted by name; one that does not is logged."""
    versions: dict[str, str] = {}
    for name, point in sorted(_entry_points().items()):
        try:
            versions[name] = _load(point).version
        except UnknownTaskError as error:
            _log.warning("task_not_loadable", task=name, reason=error.message)
    return versions


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _load(point: EntryPoint) -> Task:
    try:
        task: Task = point.load()
    # A task is foreign code: whatever its import raises, the answer is that this task cannot be used here.
    except Exception as error:
        raise UnknownTaskError(
            f"Expected task {point.name!r} at {point.value}, got {type(error).__name__}: {error}",
            hint="Reinstall the package that brings the task, with all it depends on.",
        ) from error
    if task.name != point.name:
        raise UnknownTaskError(f"Expected a task named like its entry point {point.name!r}, got {task.name!r}")
    return task
