"""The device's files of secure aggregation: on disk before each answer, and never of two minds."""

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.training import secure as module
from edge_agent.training.secure import SecureRounds, encoded
from shared.files import write_atomically
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import SecureStep, SecureWork
from shared.secagg.device import Policy
from shared.secagg.errors import RoundRefusedError, UnencodableUpdateError
from shared.secagg.messages import Advertisement, Roster, Terms
from shared.secagg.server import roster_of
from shared.tensors import Tensors
from tests.edge_agent.training.device import Device
from tests.shared.secagg.cohort import identity, verify

MODEL: Tensors = {"w": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32), "frozen": np.ones(5, np.float32)}
UPDATE: Tensors = {"w": np.full((2, 3), 0.25, np.float32), "b": np.full(2, 0.5, np.float32)}
NAMES = ("a", "b", "c")
STEPS = {"steps": 1, "learning-rate": 0.1, "seed": 0, "server-round": 1}


def work(step: SecureStep = SecureStep.ADVERTISE, *, training: str = "work-1", clients_min: int = 3) -> SecureWork:
    terms = Terms(round_id=f"round of {training}", parameters=8, clients_min=clients_min, dropout_share=0.0)
    return SecureWork(step=step, terms=terms, training=training, clients_max=3, value_max=1.0)


def rounds(folder: Path, name: str = "a") -> SecureRounds:
    return SecureRounds(folder / name, device=name, certificate=b"", sign=identity(name).sign, verify=verify)


def roster(folder: Path) -> Roster:
    found = [rounds(folder, name).advertise(work(), model=MODEL, update=UPDATE) for name in NAMES]
    return roster_of(Advertisement.model_validate_json(each) for each in found)


def test_what_is_summed_is_the_change_by_name_in_fixed_point() -> None:
    words = encoded(MODEL, UPDATE, work())
    step = 2.0**-29
    assert words.view(np.int32).tolist() == [-0.5 / step] * 2 + [0.25 / step] * 6


def test_an_update_too_large_for_the_format_never_leaves(tmp_path: Path) -> None:
    large: Tensors = {**UPDATE, "b": np.full(2, 7, np.float32)}
    with pytest.raises(UnencodableUpdateError, match="at most 1, got 6"):
        rounds(tmp_path).advertise(work(), model=MODEL, update=large)
    assert not list(tmp_path.rglob("*.state"))


def test_asked_again_after_a_restart_a_device_gives_the_same_answers(tmp_path: Path) -> None:
    everybody = roster(tmp_path)
    assert roster(tmp_path) == everybody
    message = everybody.model_dump_json().encode()
    first = rounds(tmp_path).answer(work(SecureStep.SHARE), message)
    assert rounds(tmp_path).answer(work(SecureStep.SHARE), message) == first


def test_a_kill_before_the_state_is_stored_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = roster(tmp_path).model_dump_json().encode()
    before = [path.read_bytes() for path in sorted(tmp_path.rglob("*.state"))]

    def killed(path: Path, content: bytes, *, mode: int = 0o644) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        rounds(tmp_path).answer(work(SecureStep.SHARE), message)
    assert [path.read_bytes() for path in sorted(tmp_path.rglob("*.state"))] == before
    monkeypatch.setattr(module, "write_atomically", write_atomically)
    assert rounds(tmp_path).answer(work(SecureStep.SHARE), message)


def test_another_roster_or_other_terms_are_refused(tmp_path: Path) -> None:
    everybody = roster(tmp_path)
    rounds(tmp_path).answer(work(SecureStep.SHARE), everybody.model_dump_json().encode())
    other = everybody.model_copy(update={"advertisements": everybody.advertisements[:2]})
    with pytest.raises(RoundRefusedError, match="the same again"):
        rounds(tmp_path).answer(work(SecureStep.SHARE), other.model_dump_json().encode())
    with pytest.raises(RoundRefusedError, match="the terms that the round began with"):
        rounds(tmp_path).answer(work(SecureStep.SHARE, clients_min=4), everybody.model_dump_json().encode())


def test_a_round_that_a_device_does_not_know_and_bytes_that_say_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RoundRefusedError, match="Expected a round this device takes part in"):
        rounds(tmp_path).answer(work(SecureStep.SHARE), b"{}")
    roster(tmp_path)
    with pytest.raises(RoundRefusedError, match="Expected a message of step share, got other bytes"):
        rounds(tmp_path).answer(work(SecureStep.SHARE), b"{}")


def test_more_devices_than_the_format_was_made_for_are_refused(tmp_path: Path) -> None:
    message = roster(tmp_path).model_dump_json().encode()
    few = work(SecureStep.SHARE).model_copy(update={"clients_max": 2})
    with pytest.raises(RoundRefusedError, match="at most 2 devices in a sum, got 3"):
        rounds(tmp_path).answer(few, message)


def test_files_are_the_owners_alone_and_only_the_newest_rounds_stay(tmp_path: Path) -> None:
    for number in range(module.ROUNDS_KEPT + 3):
        rounds(tmp_path).advertise(work(training=f"work-{number}"), model=MODEL, update=UPDATE)
    files = list((tmp_path / "a").iterdir())
    assert len([path for path in files if path.suffix == ".state"]) == module.ROUNDS_KEPT
    assert len([path for path in files if path.suffix == ".words"]) == module.ROUNDS_KEPT
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)


def test_the_owners_policy_is_asked(tmp_path: Path) -> None:
    strict = replace(rounds(tmp_path), policy=Policy(clients_min=5))
    message = roster(tmp_path).model_dump_json().encode()
    with pytest.raises(RoundRefusedError, match="at least 5 devices, got 3"):
        strict.answer(work(SecureStep.SHARE), message)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path / "device", secure=rounds(tmp_path), secure_min=3)
    yield made
    made.close()


def asked_of(device: Device, work_id: str, **changes: Any) -> WorkResult:
    """Real training for a secure sum. `Any`: fields of SecureWork."""
    terms = Terms(round_id="r", parameters=2410, clients_min=3)
    secure = SecureWork(step=SecureStep.ADVERTISE, terms=terms, training=work_id, clients_max=3, value_max=16.0)
    return device.perform(work_id, secure=secure.model_copy(update=changes).model_dump(mode="json"), config=STEPS)


def test_training_for_a_sum_sends_keys_and_its_size_alone(device: Device, tmp_path: Path) -> None:
    result = asked_of(device, "work-1")
    assert result.status is WorkStatus.DONE, result.reason
    assert result.metrics == {"num-examples": 80.0}
    sent = Advertisement.model_validate_json((tmp_path / "device" / "update").read_bytes())
    assert sent.device == "a"


def test_an_owner_who_wants_sums_refuses_training_that_sends_the_update_itself(device: Device) -> None:
    result = device.perform("work-1", config=STEPS)
    assert (result.status, "secure sums of at least 3 devices" in result.reason) == (WorkStatus.REFUSED, True)


def test_what_is_not_this_very_work_or_too_large_is_refused(device: Device) -> None:
    assert "of this very work" in asked_of(device, "work-1", training="work-0").reason
    assert "Expected numbers of at most 1e-09" in asked_of(device, "work-2", value_max=1e-9).reason
