"""What an engine refuses, and how it fails."""

from shared.errors import FleetlearnError


class UnsupportedModelError(FleetlearnError):
    """A model that this engine has no fast way to compute."""

    code = "unsupported_model"


class NoGpuError(FleetlearnError):
    """An engine for GPUs on a machine where torch can use none."""

    code = "no_gpu"


class EngineStoppedError(FleetlearnError):
    """An engine that computes elsewhere (Ray, another process) and stopped answering, or answered with an error."""

    code = "engine_stopped"


class WorkerDiedError(FleetlearnError):
    """A worker process is gone.

    Args:
        pid: Its process id.
        number: Which of the workers, from 0.
        how: How it ended: a predicate.
    """

    code = "engine_worker_died"

    def __init__(self, pid: int, number: int, how: str) -> None:
        super().__init__(
            f"Worker process {number} (pid {pid}) {how} during a round",
            hint="SIGKILL is often the kernel, out of memory: use fewer processes or smaller chunks. "
            "The round was not aggregated: run it again, or resume from the last checkpoint",
        )
        self.pid, self.number, self.how = pid, number, how

    def __reduce__(self) -> tuple[type["WorkerDiedError"], tuple[int, int, str]]:
        return WorkerDiedError, (self.pid, self.number, self.how)


class WorkerFailedError(FleetlearnError):
    """A worker process raised something unexpected: a mistake in a model, a loss or a collector, or one of ours.

    Args:
        summary: Type and text of what was raised.
        story: Its traceback, from the worker.
    """

    code = "engine_worker_failed"

    def __init__(self, summary: str, story: str) -> None:
        super().__init__(f"A worker process raised {summary}", hint="its traceback is in the note below")
        self.summary, self.story = summary, story
        self.add_note(story)

    def __reduce__(self) -> tuple[type["WorkerFailedError"], tuple[str, str]]:
        return WorkerFailedError, (self.summary, self.story)
