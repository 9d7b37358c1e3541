"""Campaigns whose coordinator sees the sum of a round's updates, and no single one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cloud.campaigns.errors import InvalidCampaignError
from cloud.campaigns.secure.exclusions import EXCLUDED, check_secure
from shared.api.campaigns import CampaignCreate
from shared.compression.settings import Compression
from shared.compression.shared_mask import SharedMask, mask_seed
from shared.compression.updates import layout_of
from shared.errors import FleetlearnError
from shared.messages.work import SecureStep
from shared.strategies import STRATEGIES
from tests.cloud.campaigns.secure_fleet import SecureDevices
from tests.cloud.campaigns.world import KilledError, World, trains

SECURE = {"clients_min": 3, "dropout_share": 0.2}
NAMES = ("a", "b", "c", "d", "e")
Weights = dict[str, np.ndarray[Any, np.dtype[Any]]]


def world_of(
    folder: Path,
    *,
    gone: dict[str, SecureStep] | None = None,
    **fields: Any,  # of CampaignCreate
) -> tuple[World, SecureDevices]:
    folder.mkdir(exist_ok=True)
    world, devices = World(folder), SecureDevices(folder / "devices")
    for name in NAMES:
        world.add(name, devices.behaviour(gone_at=(gone or {}).get(name)))
    wanted = {"secure": SECURE, "quorum": 4, "round_timeout_s": 0.5, **fields}
    world.ask(number=1, **wanted)
    return world, devices


def final(world: World) -> Weights:
    version = world.campaign().result_model_version_id
    assert version is not None
    return world.weights(version)


def plain(folder: Path, names: tuple[str, ...] = NAMES, **fields: Any) -> Weights:
    """What the same devices' updates make without masks."""
    folder.mkdir()
    world = World(folder)
    for name in names:
        world.add(name, trains)
    world.ask(quorum=len(names), **fields)
    world.run()
    return final(world)


def test_the_model_is_that_of_a_campaign_that_sees_every_update(tmp_path: Path) -> None:
    world, _ = world_of(tmp_path / "secure")
    world.run()
    expected = plain(tmp_path / "plain")
    for name, value in final(world).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-6)
    assert [(each.round, each.state) for each in world.campaign().history] == [(1, "done"), (2, "done")]


@pytest.mark.parametrize("step", [step for step in SecureStep if step is not SecureStep.ADVERTISE])
def test_a_device_that_goes_away_at_any_step_stops_nobody(tmp_path: Path, step: SecureStep) -> None:
    world, _ = world_of(tmp_path / "secure", gone={"c": step})
    world.run()
    is_in = step in (SecureStep.AGREE, SecureStep.RELEASE)
    expected = plain(tmp_path / "plain", NAMES if is_in else tuple(name for name in NAMES if name != "c"))
    for name, value in final(world).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-6)


def test_when_too_many_go_away_the_round_is_abandoned_with_the_reason(tmp_path: Path) -> None:
    gone = dict.fromkeys(("a", "b", "c"), SecureStep.MASK)
    world, _ = world_of(tmp_path / "secure", gone=gone)
    with pytest.raises(FleetlearnError, match="Expected at least 3 devices to agree, got 2"):
        world.run()
    assert {each.state for each in world.campaign().history} == {"abandoned"}


def test_nothing_that_devices_send_contains_their_update(tmp_path: Path) -> None:
    world, devices = world_of(tmp_path / "secure", rounds=1)
    world.run()
    received = b"".join(devices.sent)
    for words in (tmp_path / "secure" / "devices").rglob("*.words"):
        payload = words.read_bytes()
        assert not any(payload[start : start + 12] in received for start in range(0, len(payload) - 12, 1000))


def test_a_kill_after_any_write_ends_with_the_same_weights(tmp_path: Path) -> None:
    """And no device is asked anything that it must refuse."""
    undisturbed, _ = world_of(tmp_path / "undisturbed", rounds=1, gone={"b": SecureStep.MASK})
    undisturbed.run()
    expected = final(undisturbed)
    for write in range(1, undisturbed.writes + 1):
        world, _ = world_of(tmp_path / f"kill-{write}", rounds=1, gone={"b": SecureStep.MASK})
        world.writes, world.kill_after_writes = 0, write
        with pytest.raises(KilledError):
            world.run()
        world.let_devices_work()
        world.run()
        assert [(each.attempt, each.state) for each in world.campaign().history] == [(1, "done")], f"write {write}"
        for name, value in final(world).items():
            np.testing.assert_array_equal(value, expected[name])
        world.engine.dispose()


def asked(**fields: Any) -> CampaignCreate:
    wanted = {"secure": SECURE, "quorum": 4, **fields}
    return CampaignCreate.model_validate({"task": "digits", "model_version_id": "m", **wanted})


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_strategy_that_secure_aggregation_excludes_is_refused_with_the_reason(name: str) -> None:
    if name in EXCLUDED:
        with pytest.raises(InvalidCampaignError, match=f"got {name}: {EXCLUDED[name]}"):
            check_secure(asked(strategy=name))
    else:
        check_secure(asked(strategy=name))


def test_one_mask_for_a_round_sums_a_tenth_of_the_numbers(tmp_path: Path) -> None:
    """The model moves exactly where the round's positions are, by the mean of all updates."""
    world, devices = world_of(tmp_path / "secure", rounds=1, compression="random-k=0.1")
    world.run()
    start, expected = world.model, plain(tmp_path / "plain", rounds=1)
    layout = layout_of(start, tuple(start))
    moved, mean = (layout.flatten(each) - layout.flatten(start) for each in (final(world), expected))
    mask = SharedMask.of(Compression.parse("random-k=0.1"), parameters=layout.size, seed=mask_seed("campaign-1/1/1"))
    travelled = mask.expanded(mask.restricted(torch.from_numpy(mean))).numpy()
    np.testing.assert_allclose(moved, travelled, rtol=0, atol=1e-6)
    assert np.count_nonzero(moved) == mask.k == 241
    assert sum(len(payload) == 4 * mask.k for payload in devices.sent) == len(NAMES)


def test_a_campaign_that_contradicts_itself_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidCampaignError, match="got median: robust rules look at single updates"):
        world_of(tmp_path / "secure", strategy="median")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"compression": "int8"}, "that add up under secure aggregation, got 'int8': each"),
        ({"compression": "top-k=0.1"}, "that add up under secure aggregation, got 'top-k=0.1': each"),
        ({"compression": "low-rank=2"}, "that add up under secure aggregation, got 'low-rank=2': each"),
        ({"secure": {"clients_min": 4}, "quorum": 3}, "a quorum of at least 4"),
        ({"secure": {"dropout_share": 0.4}, "quorum": 3}, "lose 1 and hold 0 liars"),
    ],
)
def test_what_does_not_go_with_it_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidCampaignError, match=sentence):
        check_secure(asked(**fields))


def test_the_bytes_of_a_round_are_those_of_all_its_steps(tmp_path: Path) -> None:
    world, devices = world_of(tmp_path / "secure", rounds=1)
    world.run()
    (found,) = world.campaign().history
    assert found.bytes_up == sum(len(payload) for payload in devices.sent)
    assert found.bytes_up > len(NAMES) * 4 * sum(value.size for value in world.model.values())
    assert found.bytes_down > len(NAMES) * found.bytes_down_raw / len(NAMES)
