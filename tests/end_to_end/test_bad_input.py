"""Bad input to a running fleet: refused at the right place, in one clear sentence, with the serving model untouched."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import calls
from fleet.waiting import wait_for
from shared.api.enrolment import EnrolmentToken, TokenCreate
from shared.api.rollouts import RolloutCreate
from shared.lifecycles import ReleaseState, RolloutState
from simulations.demo.processes import ProcessEndedError, run_once
from tests.support.fleet import PATIENCE, Fleet

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet"), address="127.0.0.51") as running:
        running.enrol("unit-a", number=0)
        yield running


def test_a_flipped_byte_is_refused_and_the_operator_sees_why(fleet: Fleet) -> None:
    good = fleet.publish(fleet.train_base(seed=1).model_version_id)
    assert _roll_out(fleet, good.release_id) is RolloutState.DONE

    bad = fleet.publish(fleet.train_base(seed=2).model_version_id)
    _flip_a_byte(_target_file(fleet.cloud_dir / "tuf" / "targets", bad.release_id, "model.onnx"))
    assert _roll_out(fleet, bad.release_id) is RolloutState.HALTED

    device = fleet.device("unit-a")
    assert device.release_id == good.release_id
    assert device.release_state is ReleaseState.FAILED
    assert "model.onnx" in device.release_error
    assert device.release_error in device.why_not_at_target


def test_a_used_token_enrols_nobody_else(fleet: Fleet, tmp_path: Path) -> None:
    token = fleet.client.send(calls.create_token(TokenCreate())).token
    run_once(["agent", "enrol", "--state", tmp_path / "one", "--token", token, "--device-id", "unit-one"], timeout_s=30)
    with pytest.raises(ProcessEndedError, match="used"):
        run_once(
            ["agent", "enrol", "--state", tmp_path / "two", "--token", token, "--device-id", "unit-two"], timeout_s=30
        )


def test_a_token_for_one_device_enrols_no_other(fleet: Fleet, tmp_path: Path) -> None:
    token = fleet.client.send(calls.create_token(TokenCreate(device_id="unit-x"))).token
    with pytest.raises(ProcessEndedError, match="unit-x"):
        run_once(["agent", "enrol", "--state", tmp_path, "--token", token, "--device-id", "unit-y"], timeout_s=30)


def test_a_device_says_its_secret_to_no_other_coordinator(fleet: Fleet, tmp_path: Path) -> None:
    token = EnrolmentToken.decode(fleet.client.send(calls.create_token(TokenCreate())).token)
    forged = token.model_copy(update={"ca_fingerprint": "0" * 64}).encode()
    with pytest.raises(ProcessEndedError, match="fingerprint"):
        run_once(["agent", "enrol", "--state", tmp_path, "--token", forged, "--device-id", "unit-z"], timeout_s=30)


def _roll_out(fleet: Fleet, release_id: str) -> RolloutState:
    request = RolloutCreate(release_id=release_id, wave_fractions=[1.0], soak_s=1, wave_timeout_s=60)
    planned = fleet.client.send(calls.plan_rollout(request))
    fleet.client.send(calls.start_rollout(planned.rollout_id))
    return wait_for(
        fleet.client,
        calls.rollout(planned.rollout_id),
        is_over=lambda r: r.state not in (RolloutState.PLANNED, RolloutState.RUNNING),
        patience=PATIENCE,
    ).state


def _target_file(targets_dir: Path, release_id: str, name: str) -> Path:
    (path,) = (targets_dir / "releases" / release_id).glob(f"*{name}")
    return path


def _flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
