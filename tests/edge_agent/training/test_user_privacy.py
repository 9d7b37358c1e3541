"""What a device does under user-level privacy: it clips before anything leaves, and tells little."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.training.secure import encoded
from shared.messages.work import SecureStep, SecureWork, UserWork
from shared.privacy import NoiseBy, UserPrivacySpec
from shared.secagg.errors import RoundRefusedError
from shared.secagg.messages import Terms
from shared.secagg.noise import format_of
from shared.tensors import Tensors
from shared.user_privacy import summed_noise
from tests.edge_agent.training.device import MODEL, Device

CLIP = 0.05


def user(**changed: Any) -> UserWork:
    """`Any`: fields of the specification."""
    spec = {
        "epsilon": 1.0,
        "delta": 1e-5,
        "noise_multiplier": 1.0,
        "clip_norm": CLIP,
        "sampling_rate": 1.0,
        "expected_clients": 4,
        "rounds": 1,
        **changed,
    }
    return UserWork(spec=UserPrivacySpec.model_validate(spec), clip_norm=CLIP)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    yield made
    made.close()


def change(update: Tensors) -> NDArray[np.float64]:
    return np.concatenate([np.subtract(update[name], MODEL[name], dtype=np.float64).ravel() for name in sorted(update)])


def test_what_leaves_is_no_longer_than_the_bound_and_points_where_it_did(device: Device) -> None:
    free = change(device.does("work-1"))
    clipped = change(device.does("work-2", user_privacy=user().model_dump(mode="json")))
    assert float(np.linalg.norm(free)) > 4 * CLIP
    assert CLIP * 0.999 < float(np.linalg.norm(clipped)) <= CLIP * (1 + 1e-6)
    # Batches are drawn anew for each work, so the two directions are alike and not the same.
    assert float(free @ clipped) / float(np.linalg.norm(free) * np.linalg.norm(clipped)) > 0.5


def test_a_bound_that_adapts_is_the_coordinators_to_apply_since_it_must_see_who_is_within(device: Device) -> None:
    adaptive = user(adaptive={"count_noise": 0.5}).model_dump(mode="json")
    assert float(np.linalg.norm(change(device.does("work-1", user_privacy=adaptive)))) > 4 * CLIP


def test_no_figure_leaves_but_how_many_examples_there_are(device: Device) -> None:
    assert set(device.perform("work-1").metrics) > {"num-examples", "train-loss"}
    hidden = device.perform("work-2", user_privacy=user().model_dump(mode="json"))
    assert set(hidden.metrics) == {"num-examples"}


SUMMED: dict[str, Any] = {"noise_by": NoiseBy.CLIENTS, "noise_clients_min": 3}
BEFORE: Tensors = {"w": np.zeros(1000, np.float32)}
AFTER: Tensors = {"w": np.full(1000, 7, np.float32)}


def secure(asked: UserWork, **changed: Any) -> SecureWork:
    """`Any`: fields of the terms."""
    noise = summed_noise(asked.spec, asked.clip_norm)
    terms = {"round_id": "r", "parameters": 1000, "clients_min": 3, "corrupt_share": 0.0, "noise": noise, **changed}
    return SecureWork(
        step=SecureStep.ADVERTISE, terms=Terms.model_validate(terms), training="w", clients_max=4, value_max=16
    )


def test_under_secure_aggregation_an_update_is_clipped_and_noised_before_it_is_masked() -> None:
    asked = user(**SUMMED)
    work = secure(asked)
    assert work.terms.noise is not None
    format = format_of(work.terms.noise, clients_max=4)
    one, other = (format.decode(encoded(BEFORE, AFTER, work, asked)) for _ in range(2))
    # Its noise is its own each time: a difference of two has twice the variance of a share.
    share = CLIP / np.sqrt(3)
    assert float((one - other).std()) == pytest.approx(share * np.sqrt(2), rel=0.1)
    # And what it hides is the direction of the update, at the bound's length.
    mean = float(np.mean([format.decode(encoded(BEFORE, AFTER, work, asked)).mean() for _ in range(50)]))
    assert mean == pytest.approx(CLIP / np.sqrt(1000), abs=4 * share / np.sqrt(50 * 1000))


@pytest.mark.parametrize(
    ("terms", "asked", "sentence"),
    [
        ({"noise": None}, SUMMED, "the noise that hides devices in the terms"),
        ({}, {**SUMMED, "noise_multiplier": 0.5}, "the noise that hides devices in the terms"),
        ({"corrupt_share": 0.3}, SUMMED, "Expected noise that 2 devices make"),
    ],
)
def test_a_device_takes_part_in_no_sum_with_less_noise_than_was_said(
    terms: dict[str, Any], asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RoundRefusedError, match=sentence):
        encoded(BEFORE, AFTER, secure(user(**SUMMED), **terms), user(**asked))
