"""Devices clip and add the noise themselves under secure aggregation: nobody ever has a sum without it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloud.campaigns.errors import InvalidCampaignError
from shared.errors import FleetlearnError
from shared.ids import DeviceId
from shared.messages.events import WorkResult
from shared.messages.work import SecureStep, Work
from shared.privacy import Adjacency
from tests.cloud.campaigns.secure_fleet import SecureDevices
from tests.cloud.campaigns.test_user_privacy import flat, plain_mean
from tests.cloud.campaigns.world import Behaviour, KilledError, World

CLIP, NOISE = 0.1, 2.0
NAMES = ("a", "b", "c", "d", "e", "f")
USER = {"noise_multiplier": NOISE, "clip_norm": CLIP, "noise_by": "clients"}
ADAPTIVE = {**USER, "adaptive": {"count_noise": 0.4}}
SECURE = {"clients_min": 5, "corrupt_share": 0.0, "dropout_share": 0.2}


def world_of(folder: Path, *, gone: dict[str, SecureStep] | None = None, **fields: Any) -> tuple[World, SecureDevices]:
    folder.mkdir(exist_ok=True)
    world, devices = World(folder), SecureDevices(folder / "devices")
    for name in NAMES:
        world.add(name, devices.behaviour(gone_at=(gone or {}).get(name)))
    wanted = {"secure": SECURE, "user_privacy": USER, "selection": {"cohort": 6}, "quorum": 5, "round_timeout_s": 0.5}
    world.ask(**{**wanted, "rounds": 1, **fields})
    return world, devices


def moved(world: World) -> NDArray[np.float64]:
    return flat(world.weights(str(world.run()["model_version_id"]))) - flat(world.model)


def is_promised(noise: NDArray[np.float64], *, members: int) -> bool:
    """Whether the sum of so many members, by the expected six, has the deviation that five must make."""
    expected = NOISE * CLIP * math.sqrt(members / 5) / 6
    return abs(float(noise.std()) / expected - 1) < 4 / math.sqrt(2 * len(noise))


def test_the_model_is_the_clipped_mean_with_the_noise_of_whoever_is_in_the_sum(tmp_path: Path) -> None:
    world, _ = world_of(tmp_path / "secure")
    noise = moved(world) - plain_mean(world, CLIP)
    assert is_promised(noise, members=6)
    assert not is_promised(noise, members=5)


def test_as_many_survivors_as_may_be_few_still_make_all_of_the_noise(tmp_path: Path) -> None:
    world, _ = world_of(tmp_path / "secure", gone={"c": SecureStep.MASK})
    # What the five learned is a tenth of the noise's norm at most: the noise is what is seen.
    assert is_promised(moved(world) - plain_mean(world, CLIP) * 5 / 6, members=5)


def test_without_enough_survivors_there_is_no_sum(tmp_path: Path) -> None:
    world, _ = world_of(tmp_path / "secure", gone=dict.fromkeys(("b", "c"), SecureStep.MASK))
    with pytest.raises(FleetlearnError, match="Expected at least 5 devices to agree, got 4"):
        world.run()


def test_the_coordinator_sees_no_vector_of_a_device_with_or_without_its_noise(tmp_path: Path) -> None:
    world, devices = world_of(tmp_path / "secure")
    world.run()
    received = b"".join(devices.sent)
    stored = [path.read_bytes() for path in (tmp_path / "secure" / "devices").rglob("*.words")]
    assert len(stored) == 6
    for payload in stored:
        assert not any(payload[start : start + 8] in received for start in range(0, len(payload) - 8, 800))


def test_a_kill_while_steps_go_on_ends_with_the_same_sum(tmp_path: Path) -> None:
    """Noise is drawn once, on the devices: whatever is killed, the model is the one that they made."""
    undisturbed, _ = world_of(tmp_path / "undisturbed", user_privacy=ADAPTIVE)
    undisturbed.run()
    for write in range(undisturbed.writes // 2, undisturbed.writes + 1, 2):
        world, devices = world_of(tmp_path / f"kill-{write}", user_privacy=ADAPTIVE)
        world.writes, world.kill_after_writes = 0, write
        with pytest.raises(KilledError):
            world.run()
        sent_before = set(devices.sent)
        world.let_devices_work()
        once, again = moved(world), moved(world)
        np.testing.assert_array_equal(once, again)
        assert sent_before <= set(devices.sent)
        assert [(each.attempt, each.state) for each in world.campaign().history] == [(1, "done")], f"write {write}"
        world.engine.dispose()


def _noting(bounds: list[float], behave: Behaviour) -> Behaviour:
    def notes(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        assert work.user_privacy is not None
        bounds.append(work.user_privacy.clip_norm)
        return behave(world, device_id, work)

    return notes


def test_the_bound_follows_norms_that_nobody_sees(tmp_path: Path) -> None:
    bounds: list[float] = []
    world, devices = world_of(tmp_path / "secure", user_privacy=ADAPTIVE, rounds=4)
    for name in NAMES:
        world.devices[DeviceId(name)] = _noting(bounds, devices.behaviour())
    world.run()
    of_rounds = list(dict.fromkeys(bounds))
    assert of_rounds[0] == CLIP
    assert len(of_rounds) == 4
    # All norms are about five times the bound.
    assert of_rounds[-1] > CLIP


def test_what_is_planned_says_that_sampling_amplifies_nothing(tmp_path: Path) -> None:
    world, _ = world_of(tmp_path / "secure")
    planned = world.campaign().user_privacy
    assert planned is not None
    assert (planned.sampling_rate, planned.adjacency) == (1.0, Adjacency.ZERO_OUT_ONE)
    assert (planned.noise_clients_min, planned.expected_clients) == (5, 6)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"secure": None}, "summed securely, in cohorts of a known size"),
        ({"selection": {}}, "summed securely, in cohorts of a known size"),
        ({"secure": {"clients_min": 3, "corrupt_share": 0.4}, "selection": {"cohort": 8}}, "none is surely honest"),
        ({"user_privacy": {**USER, "noise_by": "server"}}, "devices must add the noise"),
        ({"strategy": "fedper", "strategy_settings": {"local": ["0"]}}, "what is shared differs from what is trained"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tmp_path: Path, fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidCampaignError, match=sentence):
        world_of(tmp_path / "secure", **fields)
