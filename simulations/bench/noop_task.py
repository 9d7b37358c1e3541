"""A task whose training takes no step: what a round costs besides the training. Installed like anybody's own task.

Processes find tasks by entry points, so a folder with a module and its metadata on `PYTHONPATH` is an installed task.
"""

from pathlib import Path

NAME = "noop"
_MODULE = '''"""The digits task, without a step of training."""

import dataclasses

from shared.tasks.digits.task import DigitsTask


class NoopTask(DigitsTask):
    name = "noop"
    local_training = dataclasses.replace(DigitsTask.local_training, steps=0)


TASK = NoopTask()
'''


def install(folder: Path) -> Path:
    """The folder to put on `PYTHONPATH`."""
    metadata = folder / "fleetlearn_noop-1.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (folder / "fleetlearn_noop.py").write_text(_MODULE, encoding="utf-8")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fleetlearn-noop\nVersion: 1\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(f"[fleetlearn.tasks]\n{NAME} = fleetlearn_noop:TASK\n", encoding="utf-8")
    return folder
