"""What can be wrong with a task, seen from outside it."""

from shared.errors import FleetlearnError


class UnknownTaskError(FleetlearnError):
    """No installed package brings a task of this name, or the one that does cannot be loaded."""

    code = "unknown_task"


class TaskDataError(FleetlearnError):
    """A task's data is missing, damaged, or not what it should be."""

    code = "task_data"
