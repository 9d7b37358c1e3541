"""The training process as the agent drives it: real processes, on the digits task."""

import asyncio
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from cloud.training.privacy_plan import plan_privacy
from edge_agent.identity import own_key
from edge_agent.training.bounded_log import LOG_BYTES_MAX
from edge_agent.training.ledger import ledger_path, read_balances
from edge_agent.training.process import TrainingProcess, TrainingSettings
from shared.messages.base import ObjectRef
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import Work
from shared.privacy import PrivacySpec
from shared.tasks.registry import load_task
from shared.tasks.torch_model import state_tensors
from shared.tasks.updates import apply_update
from shared.tensors import decode, encode
from tests.edge_agent.training.ledgers import same_limits

pytestmark = pytest.mark.processes
TASK = load_task("digits")
MODEL = encode(state_tensors(TASK.model(seed=0)))
PRIVACY = PrivacySpec(
    epsilon=8, delta=1e-5, noise_multiplier=2.0, max_grad_norm=1.0, sampling_rate=0.5, steps_per_round=2, rounds=4
)
DEADLINE_S = 60.0


class Device:
    """A device's folders, and the work it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        own_key(folder)
        self.settings = TrainingSettings(
            folder / "data", folder / "state", folder / "device.key", limits=same_limits(8.0)
        )
        TASK.write_device_data(self.settings.data_dir, ("block-0",))
        (folder / "model").write_bytes(MODEL)

    def process(self, *, idle_s: float = 60.0, allow_without_privacy: bool = False) -> TrainingProcess:
        settings = dataclasses.replace(self.settings, allow_without_privacy=allow_without_privacy)
        return TrainingProcess(settings, idle_s=idle_s)

    async def run(self, process: TrainingProcess, **changes: object) -> WorkResult:
        return await process.run(work(**changes), model_path=self.folder / "model", update_path=self.folder / "update")

    @property
    def update(self) -> bytes:
        return (self.folder / "update").read_bytes()


def work(**changes: object) -> Work:
    fields: dict[str, object] = {
        "work_id": "w1",
        "kind": "train",
        "campaign_id": "c1",
        "round": 1,
        "task": "digits",
        "task_version": TASK.version,
        "model": ObjectRef(digest=hashlib.sha256(MODEL).hexdigest(), size_bytes=len(MODEL)),
        "privacy": PRIVACY,
        "deadline_s": DEADLINE_S,
    }
    return Work.model_validate({**fields, **changes})


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def _with_process(process: TrainingProcess, story: Callable[[], Awaitable[None]]) -> None:
    async def told() -> None:
        try:
            await story()
        finally:
            await process.close()

    asyncio.run(told())


def test_rounds_train_under_the_ledger_in_one_warm_process_and_retries_send_the_same_bytes(device: Device) -> None:
    process = device.process()

    async def story() -> None:
        first = await device.run(process)
        assert (first.status, first.reason) == (WorkStatus.DONE, "")
        assert first.metrics.keys() == {
            "num-examples",
            "steps",
            "clipped-by-book-keeping",
            "held-out-loss",
            "held-out-accuracy",
        }
        assert first.metrics["num-examples"] == 80
        assert first.privacy is not None
        assert 0 < first.privacy.epsilon < 8
        update, pid = device.update, process.pid
        changed = apply_update(decode(MODEL), decode(update))
        assert not np.array_equal(changed["0.weight"], decode(MODEL)["0.weight"])

        again = await device.run(process)
        assert (again.metrics, again.privacy, device.update) == (first.metrics, first.privacy, update)

        second = await device.run(process, work_id="w2")
        assert second.privacy is not None
        assert second.privacy.epsilon > first.privacy.epsilon
        assert device.update != update
        assert process.pid == pid
        evaluated = await device.run(process, work_id="w3", kind="evaluate", privacy=None)
        assert evaluated.metrics.keys() == {"num-examples", "loss", "accuracy"}
        assert read_balances(device.settings.state_dir) == [second.privacy]

    _with_process(process, story)


def test_refuses_what_it_must_not_do_with_the_reason_and_goes_on(device: Device) -> None:
    process = device.process()
    greedy = PRIVACY.model_copy(update={"noise_multiplier": 0.1})
    refusals: list[tuple[dict[str, object], str]] = [
        ({"task": "weather"}, "got 'weather'"),
        ({"task_version": "99"}, "version '1' of task 'digits', as installed, got '99'"),
        ({"privacy": greedy}, "at most epsilon 8"),
        ({"privacy": None}, "Expected training with privacy"),
        ({"model": ObjectRef(digest="0" * 64, size_bytes=1)}, "Expected a model with SHA-256"),
        ({"config": {"learning-rate": "fast"}}, "number for 'learning-rate'"),
        ({"config": {"trained-parameters": "tail."}}, "starts with 'tail.'"),
        ({"config": {"learning-rate": 1e38}}, "finite"),
    ]

    async def story() -> None:
        for number, (changes, reason) in enumerate(refusals):
            result = await device.run(process, **{"work_id": f"w{number}", **changes})
            assert result.status is WorkStatus.REFUSED, changes
            assert reason in result.reason
        assert not (device.folder / "update").exists()
        assert (await device.run(process, work_id="good")).status is WorkStatus.DONE

    _with_process(process, story)


def test_refuses_missing_and_damaged_data(device: Device) -> None:
    process = device.process()
    path = device.settings.data_dir / "data.safetensors"

    async def story() -> None:
        payload = bytearray(path.read_bytes())
        payload[-1] ^= 1
        path.write_bytes(payload)
        assert "SHA-256" in (await device.run(process)).reason
        path.unlink()
        assert "data.safetensors" in (await device.run(process)).reason

    _with_process(process, story)


def test_trains_without_privacy_where_the_owner_allows_it(device: Device) -> None:
    process = device.process(allow_without_privacy=True)

    async def story() -> None:
        result = await device.run(process, privacy=None)
        assert result.status is WorkStatus.DONE
        assert result.privacy is None
        assert "train-loss" in result.metrics

    _with_process(process, story)


def test_a_kill_amid_training_fails_the_work_stays_charged_and_the_retry_is_free(device: Device) -> None:
    process = device.process()
    many_steps = PRIVACY.model_copy(
        update={"steps_per_round": 100_000, "sampling_rate": 0.5, "noise_multiplier": 900.0}
    )

    async def kill_when_charged() -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not read_balances(device.settings.state_dir):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)

    async def story() -> None:
        result, _ = await asyncio.gather(device.run(process, privacy=many_steps), kill_when_charged())
        assert result.status is WorkStatus.FAILED
        assert "status -9" in result.reason
        (charged,) = read_balances(device.settings.state_dir) or []
        assert charged.epsilon > 0
        again = await device.run(process, privacy=many_steps, deadline_s=2.0)
        assert again.status is WorkStatus.FAILED
        assert "within 2 s" in again.reason
        assert read_balances(device.settings.state_dir) == [charged]
        assert process.pid is None

    _with_process(process, story)


def test_the_process_ends_when_idle_and_starts_again_for_new_work(device: Device) -> None:
    process = device.process(idle_s=0.1)

    async def story() -> None:
        await device.run(process, work_id="w1")
        deadline = time.monotonic() + DEADLINE_S
        while process.pid is not None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert (await device.run(process, work_id="w1")).status is WorkStatus.DONE

    _with_process(process, story)


def test_cancelling_the_work_kills_the_training(device: Device) -> None:
    process = device.process()

    async def story() -> None:
        running = asyncio.create_task(device.run(process))
        deadline = time.monotonic() + DEADLINE_S
        while (pid := process.pid) is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert process.pid is None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    _with_process(process, story)


def test_a_process_that_cannot_start_fails_the_work_with_its_last_words(tmp_path: Path) -> None:
    device = Device(tmp_path)
    process = TrainingProcess(device.settings, environment={"PYTHONPATH": str(tmp_path)})
    (tmp_path / "flwr.py").write_text("raise ImportError('no flwr here')")

    async def story() -> None:
        result = await device.run(process)
        assert result.status is WorkStatus.FAILED
        assert "no flwr here" in result.reason

    _with_process(process, story)


def test_a_damaged_ledger_refuses_all_work_with_that_sentence_and_stays_as_it_is(device: Device) -> None:
    process = device.process()
    device.settings.state_dir.mkdir()
    path = ledger_path(device.settings.state_dir)
    path.write_bytes(b"no ledger" * 1000)

    async def story() -> None:
        for work_id in ("w1", "w2"):
            result = await device.run(process, work_id=work_id)
            assert result.status is WorkStatus.REFUSED
            assert "got a damaged file" in result.reason
            assert "(the privacy ledger)" in result.reason
        assert path.read_bytes() == b"no ledger" * 1000
        assert process.pid is None

    _with_process(process, story)


_NOISY = """
import sys
for _ in range(64):
    sys.stderr.write("noise " * 10_000)
raise ImportError("last words")
"""


def test_a_process_that_logs_without_end_fills_a_bounded_file_and_its_last_words_are_still_known(
    tmp_path: Path,
) -> None:
    device = Device(tmp_path)
    process = TrainingProcess(device.settings, environment={"PYTHONPATH": str(tmp_path)})
    (tmp_path / "flwr.py").write_text(_NOISY)

    async def story() -> None:
        result = await device.run(process)
        assert result.status is WorkStatus.FAILED
        assert "last words" in result.reason
        log = (device.settings.state_dir / "training.log").read_bytes()
        assert LOG_BYTES_MAX < len(log) < LOG_BYTES_MAX + 100
        assert log.count(b"log full") == 1

    _with_process(process, story)


_TALKATIVE = """
import os
for name in os.listdir("/proc/self/fd"):
    if int(name) > 2 and os.path.islink(f"/proc/self/fd/{name}") and "pipe:" in os.readlink(f"/proc/self/fd/{name}"):
        os.write(int(name), b"x" * (2 << 20))
"""


def test_a_process_that_answers_without_end_fails_the_work(tmp_path: Path) -> None:
    device = Device(tmp_path)
    process = TrainingProcess(device.settings, environment={"PYTHONPATH": str(tmp_path)})
    (tmp_path / "flwr.py").write_text(_TALKATIVE)

    async def story() -> None:
        result = await device.run(process)
        assert result.status is WorkStatus.FAILED
        assert "a line of more than 1048576 bytes" in result.reason

    _with_process(process, story)


_PARENT_THAT_DIES = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "edge_agent.training.worker", *sys.argv[1:]], stdin=sys.stdin,
                         stdout=subprocess.PIPE)
print(child.pid, flush=True)
"""


def test_the_worker_ends_with_its_parent_even_while_its_input_stays_open(device: Device) -> None:
    arguments = ["--data", str(device.settings.data_dir), "--state", str(device.settings.state_dir)]
    arguments += ["--key", str(device.settings.key_file), "--epsilon-limit", "8", "--device-epsilon-limit", "8"]
    arguments += ["--delta", "1e-5"]
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT_THAT_DIES, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.wait()
        deadline = time.monotonic() + DEADLINE_S
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_malformed_line_is_answered_and_the_next_one_served(device: Device) -> None:
    job = {
        "work": work().model_dump(mode="json"),
        "model_path": str(device.folder / "model"),
        "update_path": str(device.folder / "update"),
    }
    lines = "\n".join(["not json", json.dumps({"work": {}}), json.dumps(job), ""])
    command = [sys.executable, "-m", "edge_agent.training.worker", "--data", str(device.settings.data_dir)]
    command += ["--state", str(device.settings.state_dir), "--key", str(device.settings.key_file)]
    command += ["--epsilon-limit", "8", "--device-epsilon-limit", "8", "--delta", "1e-5"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["type"] for answer in answers] == ["ready", "error", "error", "result"]
    assert answers[-1]["result"]["status"] == "done"


def test_a_device_with_the_planned_limit_takes_part_in_every_round(device: Device) -> None:
    process = device.process()
    plan = plan_privacy(epsilon=8, delta=1e-5, sampling_rate=0.5, steps_per_round=2, rounds=3, max_grad_norm=1.0)

    async def story() -> None:
        for number in range(plan.rounds):
            assert (await device.run(process, work_id=f"w{number}", privacy=plan)).status is WorkStatus.DONE
        refused = await device.run(process, work_id="one-more", privacy=plan)
        assert refused.status is WorkStatus.REFUSED
        (spent,) = read_balances(device.settings.state_dir) or []
        assert 7.8 < spent.epsilon <= 8

    _with_process(process, story)
