"""`fleetlearn bench training`: what a device's training process costs beyond the training itself.

The same private training on the same data, twice in each turn: the bare loop in this process, and as a piece of work
for the agent's own training process, with ledger, signatures, model and update on disk, Flower's messages and figures
about held-out data. CPU time, since the process is nice and a busy machine would blame it; the cold start is beside it.
"""

import asyncio
import hashlib
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from edge_agent.identity import own_key
from edge_agent.training.private_sgd import train_privately
from edge_agent.training.process import TrainingProcess, TrainingSettings
from shared.messages.base import ObjectRef
from shared.messages.events import WorkStatus
from shared.messages.work import Work
from shared.privacy import PrivacyLimits, PrivacySpec
from shared.randomness import SecureRandomness
from shared.tasks.registry import load_task
from shared.tasks.task import DeviceData
from shared.tasks.torch_model import state_tensors
from shared.tensors import encode
from simulations.bench.errors import BenchError
from simulations.bench.frame import BenchOptions, BenchResult, Say, medians

TASK = load_task("digits")
TRAINING_S = 30.0
"""How long the bare loop takes; a quick run takes a twentieth."""
OVERHEAD_MAX = 0.03
COLD_START_S_MAX = 3.0
_CALIBRATION_STEPS = 300
_DEADLINE_S = 600.0
_NO_LIMIT = 1e12


@dataclass(frozen=True)
class _Bench:
    """A device's folders, its data in memory, and how it trains."""

    folder: Path
    data: DeviceData
    spec: PrivacySpec

    def bare(self) -> Mapping[str, float]:
        """The loop alone, in this process."""
        model, started, cpu = TASK.model(seed=0), time.perf_counter(), time.process_time()
        _train(model, self.data, self.spec)
        return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - started}

    async def worked(self, process: TrainingProcess, number: int) -> Mapping[str, float]:
        """The same as work for the training process; its CPU time, and this process' with it."""
        pid, cpu, started = process.pid, time.process_time(), time.perf_counter()
        before = _cpu_s(pid) if pid else 0.0
        result = await process.run(
            self._work(number), model_path=self.folder / "model", update_path=self.folder / "update"
        )
        wall_s, own_s = time.perf_counter() - started, time.process_time() - cpu
        if result.status is not WorkStatus.DONE or process.pid is None:
            raise BenchError(f"Expected the training process to train, got {result.status}: {result.reason}")
        return {"cpu_s": _cpu_s(process.pid) - before + own_s, "wall_s": wall_s}

    def _work(self, number: int) -> Work:
        payload = (self.folder / "model").read_bytes()
        return Work(
            work_id=f"work-{number}",
            kind="train",
            campaign_id="bench",
            round=number + 1,
            task=TASK.name,
            task_version=TASK.version,
            model=ObjectRef(digest=hashlib.sha256(payload).hexdigest(), size_bytes=len(payload)),
            privacy=self.spec,
            deadline_s=_DEADLINE_S,
        )


def run(options: BenchOptions, say: Say) -> BenchResult:
    """Measures both, in turn; ends the process it started. Raises BenchError."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the training process has it
    try:
        with tempfile.TemporaryDirectory(prefix="fleetlearn-bench-") as name:
            bench = _prepared(Path(name), training_s=TRAINING_S / (100 if options.is_quick else 1), say=say)
            rows = asyncio.run(_measured(bench, repetitions=1 if options.is_quick else 3, say=say))
    finally:
        torch.set_num_threads(threads)
    warm, bare = rows["warm"], rows["bare"]
    figures = {
        "task_vs_bare": warm["cpu_s"] / bare["cpu_s"],
        "cold_start_s": rows["cold"]["cpu_s"] - warm["cpu_s"],
    }
    target = f"Targets: task_vs_bare at most {1 + OVERHEAD_MAX:g}, cold start at most {COLD_START_S_MAX:g} s."
    return BenchResult("training", rows, ratios={}, figures=figures, notes=(target,))


async def _measured(bench: _Bench, *, repetitions: int, say: Say) -> dict[str, dict[str, float]]:
    limits = PrivacyLimits(epsilon_limit=_NO_LIMIT, device_epsilon_limit=_NO_LIMIT, delta=1e-5)
    settings = TrainingSettings(
        bench.folder / "data", bench.folder / "state", bench.folder / "device.key", limits=limits
    )
    process = TrainingProcess(settings)
    seen: dict[str, list[Mapping[str, float]]] = {"bare": [], "warm": []}
    try:
        say("the first work, which starts the process")
        cold = dict(await bench.worked(process, 0))
        for number in range(1, repetitions + 1):
            say(f"{number} of {repetitions}")
            seen["bare"].append(bench.bare())
            seen["warm"].append(await bench.worked(process, number))
    finally:
        await process.close()
    return {**{name: medians(figures) for name, figures in seen.items()}, "cold": cold}


def _prepared(folder: Path, *, training_s: float, say: Say) -> _Bench:
    say("measuring a step")
    own_key(folder)
    TASK.write_device_data(folder / "data", ("block-0",))
    (folder / "model").write_bytes(encode(state_tensors(TASK.model(seed=0))))
    data = TASK.device_data(folder / "data")
    _train(TASK.model(seed=0), data, _spec(_CALIBRATION_STEPS))
    started = time.process_time()
    _train(TASK.model(seed=0), data, _spec(_CALIBRATION_STEPS))
    step_s = (time.process_time() - started) / _CALIBRATION_STEPS
    return _Bench(folder, data, _spec(max(1, round(training_s / step_s))))


def _train(model: torch.nn.Module, data: DeviceData, spec: PrivacySpec) -> None:
    randomness = SecureRandomness.from_system()
    train_privately(TASK, model, data.train, spec=spec, learning_rate=0.1, randomness=randomness)


def _spec(steps: int) -> PrivacySpec:
    return PrivacySpec(
        epsilon=1, delta=1e-5, noise_multiplier=4, max_grad_norm=1, sampling_rate=0.5, steps_per_round=steps, rounds=9
    )


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
