"""The agent as a process, with a real coordinator and a real hub: enrolled, refused, locked out, revoked."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.blobs.store import BlobStore
from cloud.compose import open_hub
from cloud.db import open_engine, session_factory
from cloud.settings import Settings
from cloud.work.service import create_work, outcomes_of
from fleet import calls
from shared.api.enrolment import EnrolmentToken, TokenCreate
from shared.exit_codes import ExitCode
from shared.flower_apps import read_app
from shared.ids import DeviceId
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import Work, WorkKind
from shared.tasks.registry import load_task
from shared.tasks.torch_model import state_tensors
from shared.tensors import encode
from simulations.demo.processes import run_once
from tests.support.fleet import Fleet

ADDRESS = "127.0.0.43"
FLOWER_APP = Path(__file__).parents[1] / "flower_apps" / "numpy-state"
pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("agent"), address=ADDRESS) as fleet:
        yield fleet


def agent(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_agent", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def token(fleet: Fleet, device_id: str | None = None) -> str:
    return fleet.client.send(calls.create_token(TokenCreate(device_id=device_id))).token


def test_an_enrolled_agent_is_seen_shows_its_state_and_keeps_a_second_one_out(fleet: Fleet) -> None:
    fleet.enrol("press-01", number=0)
    state = fleet.device_dir("press-01") / "state"
    assert (state / "identity" / "device.key").stat().st_mode & 0o777 == 0o600
    shown = json.loads(agent("status", "--state", state, "--json").stdout)
    assert (shown["device_id"], shown["is_running"]) == ("press-01", True)
    assert shown["serving_url"] == fleet.serving_url("press-01")
    second = agent("run", "--state", state)
    assert second.returncode == ExitCode.ALREADY_RUNNING
    assert "one that runs" in second.stderr
    again = agent("enrol", "--state", state, "--token", token(fleet))
    assert again.returncode == ExitCode.ALREADY_RUNNING


def test_a_revoked_agent_ends_and_says_so(fleet: Fleet) -> None:
    fleet.enrol("press-02", number=1)
    pid = fleet.processes.pid("press-02")
    os.kill(pid, 15)
    fleet.wait_until(
        "stopped", lambda: not (fleet.device_dir("press-02") / "state" / "serving.json").exists(), timeout_s=30
    )
    fleet.processes.forget("press-02")
    fleet.client.send(calls.revoke_device("press-02"))
    state = fleet.device_dir("press-02") / "state"
    ended = agent("run", "--state", state, "--serve-address", ADDRESS, "--serve-port", "0")
    assert ended.returncode == ExitCode.REVOKED
    assert "device_revoked" in ended.stderr


def test_a_crash_before_the_end_of_enrolment_goes_on_with_the_same_key_and_token(fleet: Fleet, tmp_path: Path) -> None:
    once = token(fleet)
    arguments = ("enrol", "--state", tmp_path, "--token", once, "--device-id", "press-03")
    assert agent(*arguments).returncode == ExitCode.OK
    (tmp_path / "identity" / "enrolment.json").unlink()
    key = (tmp_path / "identity" / "device.key").read_bytes()
    assert agent(*arguments).returncode == ExitCode.OK
    assert (tmp_path / "identity" / "device.key").read_bytes() == key


def test_what_is_wrong_with_a_token_is_said_in_one_line(fleet: Fleet, tmp_path: Path) -> None:
    good = EnrolmentToken.decode(token(fleet))
    used = token(fleet)
    assert agent("enrol", "--state", tmp_path / "a", "--token", used, "--device-id", "press-04").returncode == 0
    cases = {
        "nonsense": ("fle1.abc", "enrolment token"),
        "wrong": (good.model_copy(update={"secret": "x" * 32}).encode(), "known enrolment token"),
        "fingerprint": (good.model_copy(update={"ca_fingerprint": "0" * 64}).encode(), "fingerprint"),
        "used": (used, "unused"),
        "bound": (token(fleet, "press-09"), "press-09"),
        "away": (good.model_copy(update={"coordinator_url": f"https://{ADDRESS}:9"}).encode(), "an answer"),
    }
    for name, (text, says) in cases.items():
        refused = agent("enrol", "--state", tmp_path / name, "--token", text, "--device-id", "press-05")
        assert refused.returncode == ExitCode.FAILED, name
        assert says in refused.stderr.splitlines()[0], name
        assert good.secret not in refused.stderr
        assert "Traceback" not in refused.stderr
        assert not (tmp_path / name / "identity" / "enrolment.json").exists()


def test_a_token_on_standard_input_is_in_no_list_of_processes(fleet: Fleet, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge_agent", "enrol", "--token", "-", "--state", str(tmp_path)]
    command += ["--device-id", "press-06"]
    for text, code in (("", ExitCode.FAILED), (token(fleet) + "\n", ExitCode.OK)):
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr


def test_an_agent_without_an_identity_says_how_to_get_one(tmp_path: Path) -> None:
    refused = agent("run", "--state", tmp_path)
    assert refused.returncode == ExitCode.NOT_ENROLLED
    assert "agent enrol" in refused.stderr
    assert agent("run").returncode == ExitCode.FAILED
    assert agent("nothing").returncode == ExitCode.USAGE


def test_the_hub_is_killed_and_the_agent_comes_back_to_it(fleet: Fleet) -> None:
    fleet.enrol("press-08", number=2)
    fleet.kill_cloud_child("hub")
    killed_at = time.time()

    def is_back() -> bool:
        device = fleet.device("press-08")
        return device.is_online and (device.last_seen_at or 0) > killed_at

    fleet.wait_until("press-08 back", is_back, timeout_s=60)
    assert fleet.processes.pid("press-08")


def test_a_malformed_desired_document_is_counted_and_shown_and_changes_nothing(fleet: Fleet) -> None:
    fleet.enrol("press-07", number=3)
    settings = Settings.model_validate({"data_dir": fleet.cloud_dir, "address": ADDRESS})

    async def desire(*documents: dict[str, object]) -> None:
        hub = open_hub(settings)
        for document in documents:
            await hub.set_desired(DeviceId("press-07"), document)
        await hub.close()

    asyncio.run(desire({"release": "not a document"}, {"release": {"generation": "newest"}}))
    fleet.wait_until("two refusals", lambda: fleet.device("press-07").events_rejected >= 2, timeout_s=30)
    shown = run_once(["devices", "show", "press-07", "--data", fleet.cloud_dir, "--json"], timeout_s=30)
    assert json.loads(shown)["events_rejected"] >= 2
    assert fleet.device("press-07").is_online


def test_the_owner_decides_when_a_running_agent_trains_whatever_it_is_asked(fleet: Fleet, tmp_path: Path) -> None:
    battery, routes = tmp_path / "sys/class/power_supply/BAT0", tmp_path / "proc/net/route"
    for folder in (battery, routes.parent):
        folder.mkdir(parents=True)
    (battery / "type").write_text("Battery")
    (battery / "status").write_text("Discharging")
    routes.write_text(ROUTE.format(interface="wwan0"))
    limits = ["--train-on-charger-only", "--metered-interfaces", "wwan*", "--train-a-day-max", "1"]
    options = ["--system-root", str(tmp_path), "--allow-without-privacy", "--fetch-interval-s", "0.3"]
    fleet.enrol("press-10", number=4, options=[*limits, *options])

    assert "on its charger" in _answer(fleet, "work-1").reason
    (battery / "status").write_text("Charging")
    assert "got wwan0" in _answer(fleet, "work-2").reason
    routes.write_text(ROUTE.format(interface="eth0"))
    assert _answer(fleet, "work-3").status is WorkStatus.DONE
    assert "at most 1 trainings a day" in _answer(fleet, "work-4").reason

    fleet.kill_agent("press-10")
    fleet.start_agent("press-10", options=["--train-window", _window_elsewhere(), *options])
    assert "Expected a time within" in _answer(fleet, "work-5").reason


def test_a_flower_app_installed_while_the_agent_runs_is_offered_with_the_next_heartbeat_and_a_removed_one_no_more(
    fleet: Fleet, tmp_path: Path
) -> None:
    fleet.enrol("press-11", number=5, options=["--flower-apps", tmp_path])
    before = fleet.device("press-11").tasks
    pid = fleet.processes.pid("press-11")

    shutil.copytree(FLOWER_APP, tmp_path / "numpy-state", ignore=shutil.ignore_patterns("__pycache__"))
    app = read_app(FLOWER_APP)
    offered = {**before, app.task: app.content}
    fleet.wait_until("the app offered", lambda: fleet.device("press-11").tasks == offered, timeout_s=60)

    shutil.rmtree(tmp_path / "numpy-state")
    fleet.wait_until("the app gone", lambda: fleet.device("press-11").tasks == before, timeout_s=60)
    assert fleet.processes.pid("press-11") == pid


ROUTE = (
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
    "{interface}\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\n"
)


def _window_elsewhere() -> str:
    """Of an hour, half a day from now."""
    start = (time.localtime().tm_hour + 12) % 24
    return f"{start:02}:00-{(start + 1) % 24:02}:00"


def _answer(fleet: Fleet, work_id: str) -> WorkResult:
    """What press-10 makes of training work, which lies in the coordinator as a campaign would have put it there."""
    task = load_task("digits")
    model = BlobStore(str(fleet.cloud_dir / "blobs")).put(encode(state_tensors(task.model(seed=0))))
    work = Work(
        work_id=work_id, kind=WorkKind.TRAIN, campaign_id="c", round=1, task=task.name, task_version=task.version,
        model=model, deadline_s=60,
    )  # fmt: skip
    engine = open_engine(f"sqlite:///{fleet.cloud_dir / 'coordinator.sqlite'}")
    sessions, answers = session_factory(engine), list[WorkResult]()
    with sessions() as session, session.begin():
        create_work(session, work, device_id=DeviceId("press-10"), now=time.time())

    def has_answered() -> bool:
        with sessions() as session, session.begin():
            answers[:] = [one.result for one in outcomes_of(session, [work_id]) if one.result is not None]
        return bool(answers)

    fleet.wait_until("an answer of press-10", has_answered, timeout_s=120)
    engine.dispose()
    return answers[0]
