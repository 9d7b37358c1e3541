"""What every program of the simulation bench takes, and what it says when it ends. Standard library alone.

A program prints one line of JSON on standard output. `--started` is when its process was started, in seconds since the
epoch: the first round's end minus that is what a researcher waits, imports included.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field


@dataclass
class Record:
    """Marks the rounds of one run.

    Args:
        started_at: When the process was started, in seconds since the epoch.
    """

    started_at: float
    _marks: list[float] = field(default_factory=list)

    def mark(self) -> None:
        """A round has ended."""
        self._marks.append(time.time())

    def document(self, *, accuracy: float) -> str:
        """The program's last line: the median round without the first, in seconds, and the start-up before it."""
        rounds = [after - before for before, after in zip(self._marks, self._marks[1:], strict=False)]
        round_s = statistics.median(rounds)
        start_s = self._marks[0] - self.started_at - round_s
        return json.dumps({"round_s": round_s, "start_s": start_s, "rounds": len(self._marks), "accuracy": accuracy})

    def whole(self, *, accuracy: float, rounds: int) -> str:
        """The same, where only the first, the second and the last round were marked, and `rounds` lay between."""
        first, second, last = self._marks
        round_s = (last - second) / rounds
        start_s = first - self.started_at - round_s
        return json.dumps({"round_s": round_s, "start_s": start_s, "rounds": rounds + 2, "accuracy": accuracy})


def arguments(description: str) -> argparse.Namespace:
    """`workload`, `rounds` (at least 2), `processes`, `started`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--workload", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--started", type=float, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    return parser.parse_args()
