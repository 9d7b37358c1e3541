"""User-level privacy in campaigns: planned, drawn, noised, paid for, and the same after every kill."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlmodel import col, select

from cloud.campaigns.errors import InvalidCampaignError
from cloud.campaigns.models import CampaignRow, CampaignSecretRow, CheckpointRow, RoundRow
from cloud.campaigns.user_privacy import draw_seed, next_secret, noise_key
from shared.accountant import epsilon_of
from shared.ids import DeviceId
from shared.layout import Layout
from shared.messages.events import WorkResult
from shared.messages.work import Work
from shared.privacy import Adjacency, MechanismEvent
from shared.tensors import Tensors
from tests.cloud.campaigns.world import KilledError, World, done, stays_silent, trains

CLIP, NOISE = 0.1, 0.5
USER: dict[str, Any] = {"noise_multiplier": NOISE, "clip_norm": CLIP}
COINS = {"draw": "poisson", "rate": 0.5}
NAMES = ("a", "b", "c", "d", "e", "f")


def world_of(folder: Path, *, secret: int = 0, **fields: Any) -> World:
    """Six devices, and secrets that a test can repeat."""
    folder.mkdir(exist_ok=True)
    world = World(folder, random_bytes=lambda count: bytes([secret]) * count)
    for name in NAMES:
        world.add(name, trains)
    world.ask(**{"user_privacy": USER, **fields})
    return world


def flat(tensors: Tensors) -> NDArray[np.float64]:
    by_name = dict(sorted(tensors.items()))
    return Layout.of(by_name).flatten(by_name).astype(np.float64)


def final(world: World) -> NDArray[np.float64]:
    return flat(world.weights(str(world.run()["model_version_id"])))


def event(*, rate: float, rounds: int) -> MechanismEvent:
    return MechanismEvent(dataset_id="d", unit="device", noise_multiplier=NOISE, sampling_rate=rate, steps=rounds)


def test_what_each_device_pays_is_planned_before_the_start_and_spent_after_each_round(tmp_path: Path) -> None:
    world = world_of(tmp_path, rounds=3)
    planned = world.campaign()
    assert planned.user_privacy is not None
    assert planned.user_privacy_spent is not None
    assert planned.user_privacy.epsilon == pytest.approx(epsilon_of([event(rate=1, rounds=3)], 1e-5))
    assert planned.user_privacy_spent.epsilon == 0

    world.run()

    after = [float(step["step"].split()[4]) for step in world.progress if "done, epsilon" in step["step"]]
    assert after == pytest.approx([epsilon_of([event(rate=1, rounds=done)], 1e-5) for done in (1, 2, 3)], rel=1e-2)
    spent = world.campaign().user_privacy_spent
    assert spent is not None
    assert spent.epsilon == planned.user_privacy.epsilon


def test_a_budget_gives_the_noise_and_coins_amplify(tmp_path: Path) -> None:
    budget = {"epsilon": 4.0, "clip_norm": CLIP}
    with_coins, without = (
        world_of(tmp_path / name, user_privacy=budget, selection=rules, rounds=5).campaign().user_privacy
        for name, rules in (("coins", COINS), ("all", {}))
    )
    assert with_coins is not None
    assert without is not None
    assert with_coins.adjacency is Adjacency.ADD_OR_REMOVE_ONE
    assert without.adjacency is Adjacency.ZERO_OUT_ONE
    assert with_coins.noise_multiplier < without.noise_multiplier
    assert (with_coins.expected_clients, without.expected_clients) == (3, 6)
    for spec in (with_coins, without):
        assert 3.9 < spec.epsilon <= 4


def moved(world: World) -> NDArray[np.float64]:
    return final(world) - flat(world.model)


def plain_mean(world: World, clip: float) -> NDArray[np.float64]:
    """Of all six devices' clipped updates in the first round, without noise."""
    total = np.zeros_like(flat(world.model))
    for name in NAMES:
        folder = world.folder / f"plain-{name}"
        folder.mkdir()
        alone = World(folder)
        alone.add(name, trains)
        alone.ask(rounds=1, quorum=1)
        delta = moved(alone)
        total += delta * min(1.0, clip / float(np.linalg.norm(delta)))
    return total / len(NAMES)


def is_promised(noise: NDArray[np.float64], *, multiplier: float) -> bool:
    """Whether numbers have the promised deviation, in four of its own standard errors."""
    expected = multiplier * CLIP / len(NAMES)
    return abs(float(noise.std()) / expected - 1) < 4 / math.sqrt(2 * len(noise))


def test_the_model_is_the_mean_of_clipped_updates_plus_the_noise_that_was_planned(tmp_path: Path) -> None:
    world = world_of(tmp_path, rounds=1)
    noise = moved(world) - plain_mean(world, CLIP)
    assert is_promised(noise, multiplier=NOISE)
    # Wrong answers: a little less noise, or updates that were not clipped.
    assert not is_promised(noise, multiplier=NOISE * 1.1)
    assert not is_promised(noise, multiplier=NOISE * 0.9)
    assert abs(float(noise.mean())) < 4 * NOISE * CLIP / len(NAMES) / math.sqrt(len(noise))


def test_a_device_that_sends_a_thousand_times_more_moves_the_model_no_further(tmp_path: Path) -> None:
    def shouts(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        model = world.received(work)
        return done(world, work, {name: np.asarray(value + 1000, np.float32) for name, value in model.items()})

    world = world_of(tmp_path, rounds=1)
    world.devices[DeviceId("f")] = shouts
    quiet = world_of(tmp_path / "quiet", rounds=1)
    difference = moved(world) - moved(quiet)
    # The noise of other updates is other noise: what is left are two noises and at most two bounds.
    noises = math.sqrt(2 * len(difference)) * NOISE * CLIP / len(NAMES)
    assert float(np.linalg.norm(difference)) < 1.1 * (noises + 2 * CLIP / len(NAMES))


def rounds_of(world: World) -> list[RoundRow]:
    with world.sessions() as session, session.begin():
        return list(session.exec(select(RoundRow).order_by(col(RoundRow.round_id))).all())


def test_with_coins_a_round_goes_on_with_whoever_was_drawn_be_it_nobody(tmp_path: Path) -> None:
    world = world_of(tmp_path, rounds=6, selection={"draw": "poisson", "rate": 0.2}, quorum=2)
    world.run()
    drawn = [len(row.work_ids) for row in rounds_of(world)]
    assert len(drawn) == 6
    assert min(drawn) < 2  # fewer than the quorum, which counts who may be drawn
    assert {row.state for row in rounds_of(world)} == {"done"}
    if 0 in drawn:
        assert rounds_of(world)[drawn.index(0)].outcomes == []


def test_devices_that_stay_silent_do_not_stop_a_round_of_coins(tmp_path: Path) -> None:
    world = world_of(tmp_path, rounds=1, selection={"draw": "poisson", "rate": 1.0}, round_timeout_s=0.2)
    for name in NAMES:
        world.devices[DeviceId(name)] = stays_silent
    assert is_promised(moved(world), multiplier=NOISE)


def test_nobody_can_know_the_coins_from_what_a_campaign_tells(tmp_path: Path) -> None:
    """The same campaign, id and seed, and other secrets: other coins and other noise."""
    worlds = [
        world_of(tmp_path / name, secret=secret, rounds=4, selection=COINS)
        for name, secret in (("one", 1), ("other", 2), ("one-again", 1))
    ]
    ends = [final(world) for world in worlds]
    drawn = [[sorted(row.work_ids) for row in rounds_of(world)] for world in worlds]
    assert drawn[0] != drawn[1]
    assert drawn[0] == drawn[2]
    assert not np.array_equal(ends[0], ends[1])
    np.testing.assert_array_equal(ends[0], ends[2])


def test_no_device_and_no_operator_gets_anything_that_the_secret_is_in(tmp_path: Path) -> None:
    told: list[str] = []

    def notes(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        told.append(work.model_dump_json())
        return trains(world, device_id, work)

    world = world_of(tmp_path, secret=0xAB, rounds=2)
    for name in NAMES:
        world.devices[DeviceId(name)] = notes
    secrets = [b"\xab" * 32]
    secrets += [next_secret(secrets[0])]
    world.run()
    told += [world.campaign().model_dump_json(), str(world.progress)]
    with world.sessions() as session, session.begin():
        told += [
            row.model_dump_json()
            for table in (CampaignRow, RoundRow, CheckpointRow)
            for row in session.exec(select(table))
        ]
        # And once the campaign is over, nobody at all has it.
        assert list(session.exec(select(CampaignSecretRow))) == []
    assert len(told) > 12
    for secret in secrets:
        assert not any(secret.hex() in text or repr(secret)[2:-1] in text for text in told)


def test_the_same_updates_get_the_same_noise_and_other_updates_other_noise() -> None:
    key = noise_key(b"s" * 32, number=1, attempt=1, updates=[("a", "1"), ("b", "2")])
    assert key == noise_key(b"s" * 32, number=1, attempt=1, updates=[("a", "1"), ("b", "2")])
    others = [
        noise_key(b"t" * 32, number=1, attempt=1, updates=[("a", "1"), ("b", "2")]),
        noise_key(b"s" * 32, number=2, attempt=1, updates=[("a", "1"), ("b", "2")]),
        noise_key(b"s" * 32, number=1, attempt=2, updates=[("a", "1"), ("b", "2")]),
        noise_key(b"s" * 32, number=1, attempt=1, updates=[("a", "1"), ("b", "3")]),
        noise_key(b"s" * 32, number=1, attempt=1, updates=[("a", "1")]),
        noise_key(next_secret(b"s" * 32), number=1, attempt=1, updates=[("a", "1"), ("b", "2")]),
        bytes.fromhex(draw_seed(b"s" * 32, number=1, attempt=1)),
    ]
    assert len({key, *others}) == len(others) + 1


ADAPTIVE = {**USER, "adaptive": {"count_noise": 0.3}}


@pytest.mark.parametrize("selection", [{}, COINS], ids=["everybody", "coins"])
def test_a_kill_after_any_write_ends_with_the_same_noise(tmp_path: Path, selection: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"user_privacy": ADAPTIVE, "strategy": "fedavgm", "selection": selection}
    undisturbed = world_of(tmp_path / "undisturbed", **fields)
    expected = final(undisturbed)
    # What a round keeps matters from the second on; the first half is killed once, without coins.
    for write in range(undisturbed.writes // 2 if selection else 1, undisturbed.writes + 1):
        world = world_of(tmp_path / f"kill-{write}", **fields)
        world.kill_after_writes = write
        with pytest.raises(KilledError):
            world.run()
        world.let_devices_work()
        np.testing.assert_array_equal(final(world), expected, err_msg=f"kill after write {write}")
        assert [(each.round, each.attempt, each.state) for each in world.campaign().history] == [
            (1, 1, "done"),
            (2, 1, "done"),
        ]
        world.engine.dispose()


def test_the_bound_that_devices_get_follows_the_norms(tmp_path: Path) -> None:
    bounds: list[float] = []

    def notes(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        assert work.user_privacy is not None
        bounds.append(work.user_privacy.clip_norm)
        return trains(world, device_id, work)

    world = world_of(tmp_path, rounds=4, user_privacy=ADAPTIVE)
    for name in NAMES:
        world.devices[DeviceId(name)] = notes
    world.run()
    of_rounds = bounds[::6]
    # Norms are about 0.5, five times the bound: it grows.
    assert of_rounds[0] == CLIP
    assert of_rounds[-1] > CLIP
    assert len(set(of_rounds)) == 4


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"strategy": "scaffold"}, "goes with, got scaffold: its clients also send"),
        ({"strategy": "median"}, "goes with, got median: no single client"),
        ({"selection": {"draw": "utility", "cohort": 3}}, "looks at losses, which are data"),
        ({"selection": {**COINS, "enough": 2}}, "takes all who were drawn"),
        ({"secure": {"clients_min": 3}, "quorum": 3}, "devices must add the noise"),
        ({"user_privacy": {"epsilon": 1e-6, "clip_norm": 1.0}, "rounds": 10_000}, "a budget that noise can keep"),
        (
            {"user_privacy": {**USER, "noise_multiplier": 9, "adaptive": {"count_noise": 0.05}}},
            "the count alone would cost the budget",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused(tmp_path: Path, fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidCampaignError, match=sentence):
        world_of(tmp_path, **fields)
