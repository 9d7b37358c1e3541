"""The digits task: scikit-learn's 8x8 handwritten digits, for quick tests and first steps.

`TASK` is what the entry point names. Nothing here imports torch or scikit-learn before it is needed.
"""

from shared.tasks.digits.task import DigitsTask

TASK = DigitsTask()
