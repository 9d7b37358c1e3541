"""`fleetlearn bench aggregation`: replies of a 10 MB model become the next one, beside Flower's way on the same files.

Each measurement is a process of its own, so that its peak of memory is its own; ours and Flower's take turns. Ours goes
the coordinator's way: each reply is read from the blob store, verified against its digest, checked for NaN, and folded.
Flower's gets the replies in memory, as its Grid hands them over, and does not verify them. A thousand replies are ours
alone: they would take Flower 10 GB.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from cloud.blobs.store import BlobStore
from shared.tensors import encode
from simulations.bench.errors import BenchError
from simulations.bench.frame import BenchOptions, BenchResult, Measure, Say, interleaved

LAYERS, WIDTH = 10, 500
"""A model of ten square layers: 2.5 million parameters, 10 MB."""
FILES = 50
"""Different replies; a larger cohort sends them over again."""
TIMEOUT_S = 600


def run(options: BenchOptions, say: Say) -> BenchResult:
    """Measures all; removes the files it made. Raises BenchError."""
    few, some, many = (2, 4, 8) if options.is_quick else (10, 100, 1000)
    with tempfile.TemporaryDirectory(prefix="fleetlearn-bench-") as name:
        say(f"writing {min(some, FILES)} replies of {LAYERS * WIDTH * WIDTH * 4 / 1e6:g} MB")
        folder = prepare(Path(name), files=min(some, FILES))
        cases: dict[str, Measure] = {
            f"{case} {count}": _measure(folder, case, count)
            for case, counts in {"fedavg": (few, some, many), "flower": (few, some), "median": (some,)}.items()
            for count in counts
        }
        rows = interleaved(cases, repetitions=1 if options.is_quick else 3, say=say)
    ours, flowers = rows[f"fedavg {some}"], rows[f"flower {some}"]
    ratios = {
        "memory_vs_flower": flowers["peak_mb"] / ours["peak_mb"],
        "cpu_vs_flower": flowers["cpu_s"] / ours["cpu_s"],
    }
    grown = rows[f"fedavg {many}"]["peak_mb"] - rows[f"fedavg {few}"]["peak_mb"]
    figures = {
        "peak_mb_of_most": rows[f"fedavg {many}"]["peak_mb"],
        # A difference of two peaks: below a megabyte it is noise, and may be negative.
        "peak_grows_mb": max(grown, 0.001),
        "cpu_ms_a_reply": 1000 * rows[f"fedavg {many}"]["cpu_s"] / many,
    }
    return BenchResult("aggregation", rows, ratios, figures, ("cpu_s includes reading; memory is the peak resident.",))


def prepare(folder: Path, *, files: int) -> Path:
    """The folder with a model, and a blob store with replies to it."""
    random = np.random.default_rng(0)

    def tensors() -> bytes:
        return encode(
            {f"layer{number}": random.standard_normal((WIDTH, WIDTH), np.float32) for number in range(LAYERS)}
        )

    blobs = BlobStore(str(folder / "blobs"))
    (folder / "model").write_bytes(tensors())
    refs = [blobs.put(tensors()).model_dump() for _ in range(files)]
    (folder / "replies.json").write_text(json.dumps(refs), encoding="utf-8")
    return folder


def _measure(folder: Path, case: str, count: int) -> Measure:
    module = "flower_average" if case == "flower" else "rule_average"
    command = [sys.executable, "-m", f"simulations.bench.baselines.{module}", str(folder), case, str(count)]

    def measure() -> dict[str, float]:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise BenchError(f"Expected {case} over {count} replies, got: {done.stderr.strip()[-300:]}")
        return {name: float(value) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}

    return measure
