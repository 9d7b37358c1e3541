"""`fleetlearn bench round`: what a federated round costs besides the training, ours beside Flower's deployment.

Three parts, all of them unless `--only` names one: `rounds`, below; `training`, what a device's training process adds
to the training (`bench training`); `compression`, bytes a round and to equal accuracy (`bench compression`).

Rounds: both are real processes on loopback: a coordinator with hub and agents, a SuperLink with SuperNodes. The model
is small and the training takes no step. Ours and Flower's rounds take turns. A device's memory is taken when it is
idle: connected, and with nothing to do.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path

from fleet import calls
from fleet.waiting import wait_for_campaign
from shared.api.campaigns import Campaign, CampaignCreate
from simulations.bench import noop_task
from simulations.bench.errors import BenchError
from simulations.bench.flower_deployment import FlowerDeployment
from simulations.bench.frame import BenchOptions, BenchResult, Say, together
from simulations.bench.small_fleet import SmallFleet
from simulations.local_fleet import PATIENCE

ADDRESS = "127.0.0.47"
FEW, MANY = 2, 20
REPETITIONS = 3
ROUNDS = 30
FLOWER_ROUNDS = 3
SETTLE_S = 15.0
"""From the last start until a device counts as idle; a SuperNode starts its second process some seconds late."""


def run(options: BenchOptions, say: Say) -> BenchResult:
    """Measures the parts; a quick run the rounds alone. Raises BenchError."""
    # Here and not at the top: they load torch, which the rounds' own processes must not share memory with.
    parts: dict[str, Callable[[BenchOptions, Say], BenchResult]] = {
        "rounds": _run_rounds,
        "training": lambda *given: import_module("simulations.bench.training").run(*given),
        "compression": lambda *given: import_module("simulations.bench.compression").run(*given),
    }
    if options.only and options.only not in parts:
        raise BenchError(f"Expected --only {', '.join(parts)}, got {options.only!r}")
    wanted = [options.only] if options.only else list(parts)[: 1 if options.is_quick else None]
    return together("round", [parts[name](options, say) for name in wanted])


def _run_rounds(options: BenchOptions, say: Say) -> BenchResult:
    """Measures both; ends what it started."""
    with tempfile.TemporaryDirectory(prefix="fleetlearn-bench-") as name:
        folder = Path(name)
        plugin = noop_task.install(folder / "plugin")
        environment = {"PYTHONPATH": str(plugin)}
        with SmallFleet(folder / "ours", address=ADDRESS, environment=environment) as fleet:
            flower = FlowerDeployment(folder / "flower", fleet.processes)
            say("starting both")
            flower.start()
            bench = _RoundBench(fleet, flower, say, is_quick=options.is_quick)
            return bench.run()


class _RoundBench:
    def __init__(self, fleet: SmallFleet, flower: FlowerDeployment, say: Say, *, is_quick: bool) -> None:
        self._fleet, self._flower, self._say = fleet, flower, say
        self._repetitions = 1 if is_quick else REPETITIONS
        self._rounds = 4 if is_quick else ROUNDS
        self._sizes = (FEW,) if is_quick else (FEW, MANY)
        self._rows: dict[str, dict[str, float]] = {}

    def run(self) -> BenchResult:
        for devices in self._sizes:
            self._grow(devices)
            if devices == FEW:
                memory = {"ours": self._fleet.resident_mb(), "flower": self._flower.resident_mb()}
                self._model = self._fleet.train_base(noop_task.NAME).model_version_id
            self._measure(devices)
        self._say("killing the coordinator in a campaign")
        recovery_s = self._recover()
        few = {who: self._rows[f"{who}, {FEW} devices"] for who in ("ours", "flower")}
        for who, size in memory.items():
            few[who]["idle_mb"] = size
        ratios = {
            "noop_round_vs_flower": few["flower"]["p50_ms"] / few["ours"]["p50_ms"],
            "idle_memory_vs_supernode": memory["flower"] / memory["ours"],
        }
        figures = {
            "noop_round_p50_ms": few["ours"]["p50_ms"],
            "cold_round_s": self._cold_s,
            "recovery_s": recovery_s,
            "idle_memory_mb": memory["ours"],
        }
        if MANY in self._sizes:
            many = {who: self._rows[f"{who}, {MANY} devices"] for who in ("ours", "flower")}
            ratios[f"noop_round_{MANY}_vs_flower"] = many["flower"]["p50_ms"] / many["ours"]["p50_ms"]
            figures[f"noop_round_{MANY}_p50_ms"] = many["ours"]["p50_ms"]
        return BenchResult("round", self._rows, ratios, figures, _NOTES)

    def _grow(self, devices: int) -> None:
        self._say(f"{devices} devices each")
        self._fleet.grow(devices)
        self._flower.grow(devices)
        time.sleep(SETTLE_S)

    def _measure(self, devices: int) -> None:
        ours: list[float] = []
        theirs: list[float] = []
        for repetition in range(self._repetitions):
            self._say(f"{devices} devices: {repetition + 1} of {self._repetitions}")
            seconds = _round_seconds(self._campaign(self._rounds, devices))
            if devices == FEW and not ours:
                self._cold_s = seconds[0]
            ours += seconds[1:]
            theirs += self._flower.round_seconds(FLOWER_ROUNDS)
        self._rows[f"ours, {devices} devices"] = _quantiles(ours)
        self._rows[f"flower, {devices} devices"] = _quantiles(theirs)

    def _start_campaign(self, rounds: int, devices: int) -> Campaign:
        request = CampaignCreate(task=noop_task.NAME, model_version_id=self._model, rounds=rounds, quorum=devices)
        return self._fleet.client.send(calls.create_campaign(request))

    def _campaign(self, rounds: int, devices: int) -> Campaign:
        started = self._start_campaign(rounds, devices)
        return wait_for_campaign(self._fleet.client, started.campaign_id, patience=PATIENCE)

    def _recover(self) -> float:
        """Seconds from kill -9 of the coordinator, amid a campaign, to the end of the round it was in."""
        devices = self._sizes[0]
        started = self._start_campaign(400, devices)
        find = calls.campaign(started.campaign_id)
        self._fleet.processes.wait_until(
            "some rounds", lambda: self._fleet.client.send(find).rounds_done >= 3, timeout_s=60
        )
        killed_at = time.time()
        self._fleet.kill_cloud_child("coordinator")
        done = _wait_for_a_round_after(self._fleet, started.campaign_id, killed_at)
        self._fleet.client.send(calls.cancel_campaign(started.campaign_id))
        return done - killed_at


def _wait_for_a_round_after(fleet: SmallFleet, campaign_id: str, moment: float) -> float:
    """When the first round after this moment ended, by the coordinator's own clock, which is this machine's."""
    found: list[float] = []

    def has_ended() -> bool:
        if not fleet.is_up():
            return False
        history = fleet.client.send(calls.campaign(campaign_id)).history
        ends = [done.finished_at for done in history if done.state == "done" and done.finished_at is not None]
        found.extend(end for end in ends if end > moment)
        return bool(found)

    fleet.processes.wait_until("a round after the kill", has_ended, timeout_s=PATIENCE.timeout_s)
    return min(found)


def _round_seconds(campaign: Campaign) -> list[float]:
    """From each round's start to the next one's; the last has none."""
    starts = [done.started_at for done in campaign.history if done.state == "done"]
    return [after - before for before, after in pairwise(starts)]


def _quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "p50_ms": statistics.median(ordered) * 1000,
        "p90_ms": ordered[int(0.9 * (len(ordered) - 1))] * 1000,
        "rounds": float(len(ordered)),
    }


_NOTES = (
    "p50_ms: from one round's start to the next one's, training processes warm; cold_round_s: the first, which loads "
    "torch on the devices. idle_mb: resident memory of one idle device's processes.",
)
