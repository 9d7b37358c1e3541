"""Somebody's Flower app on a device: what runs, what is refused, and what the device remembers."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from edge_agent.training.flower_apps import CAMPAIGNS_MAX, FlowerAnswer, FlowerAppFailedError, FlowerApps
from edge_agent.training.jobs import Job, Worker
from edge_agent.training.ledger import Ledger
from shared.accountant import epsilon_of
from shared.flower_apps import FlowerAppNotInstalledError, read_app
from shared.flower_records import MalformedRecordsError, decode_records, encode_records
from shared.messages.base import ObjectRef
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import FlowerWork, Work
from tests.edge_agent.training.ledgers import KEY, same_limits

SOURCE = Path(__file__).parents[2] / "flower_apps" / "numpy-state"
NODE_CONFIG = {"partition-id": 1, "num-partitions": 2}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder of apps that the test may change."""
    folder = tmp_path / "apps"
    shutil.copytree(SOURCE, folder / "numpy-state", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def apps(tmp_path: Path, installed: Path) -> FlowerApps:
    return FlowerApps(installed, tmp_path / "state", node_config=NODE_CONFIG)


def _asked(installed: Path, **fields: Any) -> FlowerWork:  # Any: fields of FlowerWork
    app = read_app(installed / "numpy-state")
    known = {"app": app.name, "version": app.version, "digest": app.digest, "message_type": "train"}
    return FlowerWork.model_validate({**known, "run_id": 5, "node_id": 6, "run_config": app.config, **fields})


def _message(*, fail_at: int = 0) -> bytes:
    import numpy as np

    config = ConfigRecord({"fail-at": fail_at})
    return encode_records(RecordDict({"arrays": ArrayRecord([np.zeros(2)]), "config": config}))


def _first(answer: FlowerAnswer) -> list[float]:
    return [float(value) for value in decode_records(answer.records).array_records["arrays"].to_numpy_ndarrays()[0]]


def test_the_installed_client_is_called_with_this_devices_configuration(apps: FlowerApps, installed: Path) -> None:
    answer = apps.answer("w1", "c", _asked(installed), _message())

    assert _first(answer) == [2.0, 2.0]
    assert answer.metrics == {"num-examples": 2.0, "seen": 1.0}


def test_the_state_outlives_the_process_and_belongs_to_its_campaign(
    apps: FlowerApps, installed: Path, tmp_path: Path
) -> None:
    apps.answer("w1", "c", _asked(installed), _message())
    after_a_restart = FlowerApps(installed, tmp_path / "state", node_config=NODE_CONFIG)

    assert after_a_restart.answer("w2", "c", _asked(installed), _message()).metrics["seen"] == 2.0
    assert after_a_restart.answer("w3", "another", _asked(installed), _message()).metrics["seen"] == 1.0


def test_the_same_work_again_is_the_same_answer_and_no_step_of_the_state(
    apps: FlowerApps, installed: Path, tmp_path: Path
) -> None:
    first = apps.answer("w1", "c", _asked(installed), _message())
    # As after a kill between the stored answer and the result that was never said.
    after_a_kill = FlowerApps(installed, tmp_path / "state", node_config=NODE_CONFIG)

    assert after_a_kill.answer("w1", "c", _asked(installed), _message()) == first
    assert after_a_kill.answer("w2", "c", _asked(installed), _message()).metrics["seen"] == 2.0


def test_an_error_keeps_neither_answer_nor_state(apps: FlowerApps, installed: Path) -> None:
    with pytest.raises(FlowerAppFailedError, match="RuntimeError: Out of coffee"):
        apps.answer("w1", "c", _asked(installed), _message(fail_at=1))

    assert apps.answer("w2", "c", _asked(installed), _message()).metrics["seen"] == 1.0


def test_the_campaigns_not_heard_of_for_longest_are_forgotten(apps: FlowerApps, installed: Path) -> None:
    for number in range(CAMPAIGNS_MAX + 1):
        apps.answer("w1", f"c{number}", _asked(installed), _message())

    assert apps.answer("w2", "c1", _asked(installed), _message()).metrics["seen"] == 2.0
    assert apps.answer("w2", "c0", _asked(installed), _message()).metrics["seen"] == 1.0


def test_an_app_with_other_content_is_refused_with_both_contents(apps: FlowerApps, installed: Path) -> None:
    wanted = _asked(installed, digest="0" * 64)
    with pytest.raises(FlowerAppNotInstalledError, match=r"1\.0\.0\+000000000000 to be installed here, got 1\.0\.0\+"):
        apps.answer("w1", "c", wanted, _message())
    with pytest.raises(FlowerAppNotInstalledError, match=r"flwrlabs/other .* got none"):
        apps.answer("w1", "c", _asked(installed, app="flwrlabs/other"), _message())


def test_code_that_the_owner_changed_is_run_under_its_new_content_and_refused_under_the_old(
    apps: FlowerApps, installed: Path
) -> None:
    old = _asked(installed)
    assert _first(apps.answer("w1", "c", old, _message())) == [2.0, 2.0]
    client = installed / "numpy-state" / "numpystate" / "client_app.py"
    client.write_text(client.read_text().replace('["partition-id"] + 1', '["partition-id"] + 10'))

    with pytest.raises(FlowerAppNotInstalledError):
        apps.answer("w2", "c", old, _message())
    assert _first(apps.answer("w3", "c", _asked(installed), _message())) == [11.0, 11.0]


def test_junk_is_no_message(apps: FlowerApps, installed: Path) -> None:
    with pytest.raises(MalformedRecordsError):
        apps.answer("w1", "c", _asked(installed), b"junk")


class _Device:
    """A worker that is asked for an app's work."""

    def __init__(self, folder: Path, installed: Path, **worker: Any) -> None:  # Any: fields of Worker
        self.ledger = Ledger(folder / "ledger", limits=same_limits(1.0), epsilon_of=epsilon_of, key=KEY)
        self._folder, self._installed = folder, installed
        self._worker = Worker(folder, self.ledger, **worker)

    def perform(self) -> WorkResult:
        payload = _message()
        (self._folder / "model").write_bytes(payload)
        work = Work.model_validate(
            {"work_id": "w1", "kind": "train", "campaign_id": "c", "round": 1, "task": "flower:x", "task_version": "1"}
            | {"model": ObjectRef(digest=hashlib.sha256(payload).hexdigest(), size_bytes=len(payload))}
            | {"flower": _asked(self._installed), "deadline_s": 60}
        )
        update = self._folder / "update"
        return self._worker.perform(Job(work=work, model_path=str(self._folder / "model"), update_path=str(update)))


@pytest.fixture
def device(tmp_path: Path, installed: Path) -> Iterator[Any]:  # Any: makes devices from fields of Worker
    made: list[_Device] = []

    def make(**worker: Any) -> _Device:
        made.append(_Device(tmp_path, installed, **worker))
        return made[-1]

    yield make
    for each in made:
        each.ledger.close()


def test_no_app_runs_unless_the_owner_says_so(device: Any, apps: FlowerApps) -> None:
    refused = device(allow_without_privacy=True).perform()

    assert refused.status is WorkStatus.REFUSED
    assert "owner allows none" in refused.reason
    assert "--flower-apps" in refused.reason


@pytest.mark.parametrize("owner", [{"allow_without_privacy": False}, {"allow_without_privacy": True, "secure_min": 3}])
def test_an_owner_who_wants_an_account_of_privacy_gets_no_foreign_app(
    device: Any, apps: FlowerApps, owner: dict[str, Any]
) -> None:
    refused = device(flower=apps, **owner).perform()

    assert refused.status is WorkStatus.REFUSED
    assert "--allow-without-privacy" in refused.reason


def test_what_the_owner_allows_is_done(device: Any, apps: FlowerApps, tmp_path: Path) -> None:
    done = device(flower=apps, allow_without_privacy=True).perform()

    assert (done.status, done.metrics["num-examples"]) == (WorkStatus.DONE, 2.0)
    assert decode_records((tmp_path / "update").read_bytes())["metrics"]["seen"] == 1
