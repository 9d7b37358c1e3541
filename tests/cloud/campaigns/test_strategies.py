"""Campaigns by what their strategy does beyond averaging: it scores updates, remembers, or leaves layers alone."""

import numpy as np
import pytest
from sqlmodel import select

from cloud.campaigns.errors import CampaignFailedError
from cloud.campaigns.models import RoundRow
from shared.ids import DeviceId
from shared.messages.events import WorkResult
from shared.messages.work import Work
from shared.strategies import StrategySettingError
from shared.tensors import Array, Tensors
from tests.cloud.campaigns.world import World, done, stays_silent, trains, update_of


def _flips_its_sign(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
    """A liar: ten times as far as an honest device, in the opposite direction."""
    model = world.received(work)
    honest = update_of(device_id, work, model)
    return done(world, work, {name: _moved(model[name], honest[name], times=-10) for name in model})


@pytest.mark.parametrize("strategy", ["krum", "multi_krum", "median", "geometric_median", "norm_clipping"])
def test_a_liar_has_the_highest_anomaly_score_of_a_robust_campaign(world: World, strategy: str) -> None:
    for name in ("a", "b", "d", "e", "f"):
        world.add(name, trains)
    world.add("c", _flips_its_sign)
    world.ask(rounds=1, strategy=strategy)

    result = world.run()

    (found,) = world.campaign().history
    scores = {device.device_id: device.anomaly_score or 0.0 for device in found.devices}
    assert max(scores, key=lambda name: scores[name]) == "c"
    used = {device.device_id for device in found.devices if device.is_used}
    assert ("c" in used) == (strategy not in ("krum", "multi_krum"))
    moved = world.weights(str(result["model_version_id"]))
    assert _largest_change(world.model, moved) < 0.05


def test_plain_averaging_follows_the_same_liar(world: World) -> None:
    for name in ("a", "b"):
        world.add(name, trains)
    world.add("c", _flips_its_sign)
    world.ask(rounds=1)

    result = world.run()

    moved = world.weights(str(result["model_version_id"]))
    assert _largest_change(world.model, moved) > 0.05
    assert all(device.anomaly_score is None for device in world.campaign().history[0].devices)


def test_too_few_updates_for_a_robust_strategy_abandon_the_round_with_the_reason(world: World) -> None:
    world.add("a", trains)
    world.add("b", trains)
    world.ask(rounds=1, strategy="krum")

    with pytest.raises(CampaignFailedError, match="Expected at least 5 updates"):
        world.run()


def test_devices_learn_which_of_their_own_updates_counted(world: World) -> None:
    """What a device kept of work that never counted is void: a server that forgot it must not meet it again."""
    told: list[tuple[str, int, object]] = []

    def notes(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        told.append((device_id, work.round, work.config.get("after-work")))
        return (
            stays_silent(world, device_id, work)
            if (device_id, work.round) == ("c", 2)
            else trains(world, device_id, work)
        )

    for name in ("a", "b", "c"):
        world.add(name, notes)
    world.ask(rounds=3, strategy="scaffold")

    world.run()

    ids = {row.round: row.work_ids for row in _rows(world)}
    assert ("c", 1, None) in told
    assert ("c", 2, ids[1]["c"]) in told
    assert ("c", 3, ids[1]["c"]) in told
    assert ("a", 3, ids[2]["a"]) in told


def test_own_layers_that_the_model_does_not_have_end_a_campaign_before_anybody_is_asked(world: World) -> None:
    world.add("a", trains)
    world.add("b", trains)
    world.ask(strategy="fedper", strategy_settings={"local": ["head"]})

    with pytest.raises(StrategySettingError, match="got 0 of 4 to keep: the trained are"):
        world.run()

    assert world.campaign().history == []


def _rows(world: World) -> list[RoundRow]:
    with world.sessions() as session, session.begin():
        return list(session.exec(select(RoundRow)).all())


def _moved(start: Array, end: Array, *, times: float) -> Array:
    begun, ended = np.asarray(start, np.float32), np.asarray(end, np.float32)
    return begun + np.float32(times) * (ended - begun)


def _largest_change(before: Tensors, after: Tensors) -> float:
    changes = [np.asarray(after[name], np.float64) - np.asarray(before[name], np.float64) for name in after]
    return max(float(np.abs(change).max()) for change in changes)
