"""The physio task: which physiotherapy exercise does the wearer of a smartwatch perform?

`TASK` is what the entry point names. Nothing here imports torch or a data library before it is needed.
"""

from shared.tasks.physio.task import PhysioTask

TASK = PhysioTask()
