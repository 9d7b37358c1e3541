"""A worker on a real task: what leaves the device, what stays, and what a retry sends."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_agent.training.compressing import RESIDUAL
from edge_agent.training.jobs import Job, Worker
from edge_agent.training.ledger import Ledger
from edge_agent.training.secure import SecureRounds
from shared.accountant import epsilon_of
from shared.compression.settings import Compression
from shared.compression.shared_mask import SharedMask, mask_seed
from shared.compression.updates import compression_of, layout_of, restore_update
from shared.messages.base import ObjectRef
from shared.messages.events import WorkStatus
from shared.messages.work import AFTER_WORK, SecureStep, SecureWork, Work
from shared.privacy import PrivacySpec
from shared.secagg.messages import Advertisement, Terms
from shared.tasks.registry import load_task
from shared.tasks.torch_model import state_tensors
from shared.tasks.updates import check_update
from shared.tensors import Tensors, decode, encode
from tests.edge_agent.training.ledgers import KEY, same_limits
from tests.shared.secagg.cohort import identity, verify

TASK = load_task("digits")
MODEL = state_tensors(TASK.model(seed=0))
PRIVACY = PrivacySpec(
    epsilon=8, delta=1e-5, noise_multiplier=2.0, max_grad_norm=1.0, sampling_rate=0.5, steps_per_round=2, rounds=9
)


class Device:
    """A worker and its folder."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "state", limits=same_limits(50.0), epsilon_of=epsilon_of, key=KEY)
        TASK.write_device_data(folder / "data", ("block-0",))
        (folder / "model").write_bytes(encode(MODEL))
        device = identity("d")
        secure = SecureRounds(folder / "secure", device="d", certificate=b"", sign=device.sign, verify=verify)
        self._folder = folder
        self._worker = Worker(folder / "data", self.ledger, allow_without_privacy=True, secure=secure)

    def does(self, work_id: str, compression: str, **fields: object) -> tuple[bytes, str]:
        """The update's bytes, and the result's reason."""
        payload = encode(MODEL)
        work = Work.model_validate(
            {
                "work_id": work_id,
                "kind": "train",
                "campaign_id": "c",
                "round": 1,
                "task": "digits",
                "task_version": TASK.version,
                "model": ObjectRef(digest=hashlib.sha256(payload).hexdigest(), size_bytes=len(payload)),
                "deadline_s": 60,
                "compression": compression,
                **fields,
            }
        )
        path = self._folder / "update"
        result = self._worker.perform(Job(work=work, model_path=str(self._folder / "model"), update_path=str(path)))
        if result.status is not WorkStatus.DONE:
            return b"", result.reason
        return path.read_bytes(), result.reason

    @property
    def words(self) -> list[bytes]:
        """What waits for masks."""
        return [path.read_bytes() for path in (self._folder / "secure").rglob("*.words")]

    def residual_after(self, work_id: str) -> Tensors | None:
        kept = self.ledger.kept("c", after_work=work_id)
        return None if kept is None else decode(kept)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    yield made
    made.ledger.close()


@pytest.mark.parametrize("privacy", [None, PRIVACY], ids=["plain", "private"])
@pytest.mark.parametrize("words", ["int8", "top-k=0.05+int8", "low-rank=2+float16"])
def test_an_update_leaves_compressed_and_a_retry_sends_the_same_bytes(
    device: Device, words: str, privacy: PrivacySpec | None
) -> None:
    update, reason = device.does("w1", words, privacy=privacy)
    assert reason == ""
    assert len(update) < len(encode(MODEL)) / 2
    assert compression_of(decode(update)) == words
    check_update(MODEL, restore_update(decode(update), MODEL, tuple(MODEL)))
    before = device.residual_after("w1")
    assert device.does("w1", words, privacy=privacy)[0] == update
    after = device.residual_after("w1")
    assert (before is None) == (after is None) == (words == "int8")
    if before is not None and after is not None:
        np.testing.assert_array_equal(before[RESIDUAL], after[RESIDUAL])


def test_what_did_not_travel_goes_with_the_next_update_unless_its_own_never_counted(device: Device) -> None:
    words = "top-k=1.0"  # all travels: what is received is this round's update and what was left of the one before
    device.does("w1", "top-k=0.05")
    left = device.residual_after("w1")
    assert left is not None
    counted, void = (
        restore_update(decode(device.does(work_id, words, config=config)[0]), MODEL, tuple(MODEL))
        for work_id, config in (
            ("w2", {AFTER_WORK: "w1", "learning-rate": 0.0}),
            ("w3", {AFTER_WORK: "unknown", "learning-rate": 0.0}),
        )
    )
    layout, expected = layout_of(MODEL, tuple(MODEL)), np.asarray(left[RESIDUAL], np.float32)
    np.testing.assert_allclose(layout.flatten(counted) - layout.flatten(MODEL), expected, atol=1e-6)
    np.testing.assert_allclose(layout.flatten(void) - layout.flatten(MODEL), 0, atol=1e-6)


def test_an_agent_that_does_not_know_a_compression_sends_in_full_and_says_so(device: Device) -> None:
    update, reason = device.does("w1", "wavelets=3+int8")
    assert reason.startswith("Sent in full: Expected a compression, got 'wavelets=3+int8'")
    check_update(MODEL, decode(update))
    assert device.does("w1", "wavelets=3+int8") == (update, reason)


def secure_work(work_id: str) -> SecureWork:
    terms = Terms(round_id="c/1/1", parameters=241, clients_min=3)
    return SecureWork(step=SecureStep.ADVERTISE, terms=terms, training=work_id, clients_max=5, value_max=16.0)


def test_under_secure_aggregation_a_tenth_waits_for_masks_and_the_rest_for_the_next_round(device: Device) -> None:
    update, reason = device.does("w1", "random-k=0.1", secure=secure_work("w1"))
    assert (reason, Advertisement.model_validate_json(update).device) == ("", "d")
    assert [len(words) for words in device.words] == [4 * 241]
    left, layout = device.residual_after("w1"), layout_of(MODEL, tuple(MODEL))
    assert left is not None
    mask = SharedMask.of(Compression.parse("random-k=0.1"), parameters=layout.size, seed=mask_seed("c/1/1"))
    residual = torch.from_numpy(np.array(left[RESIDUAL], np.float32))
    assert mask.restricted(residual).count_nonzero() == 0
    assert residual.count_nonzero() > layout.size / 2


def test_under_secure_aggregation_what_does_not_add_up_is_refused(device: Device) -> None:
    update, reason = device.does("w1", "int8", secure=secure_work("w1"))
    assert update == b""
    assert "Expected updates that add up under secure aggregation: each block has a scale" in reason
