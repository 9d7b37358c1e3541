"""A campaign whose devices run the agent's real Flower ClientApp on their real data."""

from pathlib import Path

import pytest

from fleet.views import campaigns as campaign_views
from shared.strategies import assignments
from shared.tasks.registry import load_task
from tests.cloud.campaigns.real_clients import real_client
from tests.cloud.campaigns.world import World

DEVICES = 5


@pytest.mark.parametrize(
    ("privacy", "strategy", "settings"),
    [
        (None, "fedavg", {}),
        ({"epsilon": 8.0}, "fedavg", {}),
        (None, "scaffold", {}),
        ({"epsilon": 8.0}, "scaffold", {}),
        (None, "feddyn", {}),
        (None, "fednova", {"server.momentum": "0.5"}),
        (None, "qfedavg", {"client_learning_rate": "1.0"}),
        (None, "trimmed_mean", {}),
    ],
)
def test_rounds_on_the_devices_own_data_make_the_model_better(
    tmp_path: Path, privacy: dict[str, float] | None, strategy: str, settings: dict[str, str]
) -> None:
    world = World(tmp_path)
    slices = list(load_task("digits").device_slices().values())[:DEVICES]
    for number, data in enumerate(slices):
        world.add(f"device-{number}", real_client(data))
    given = assignments(f"{key}={value}" for key, value in settings.items())
    world.ask(rounds=4, privacy=privacy, strategy=strategy, strategy_settings=given)

    world.run()

    campaign = world.campaign()
    accuracies = [r.accuracy for r in campaign.history]
    assert campaign.start_accuracy is not None
    assert campaign.start_accuracy < 0.2
    assert accuracies[-1] is not None
    assert accuracies[-1] > campaign.start_accuracy + 0.3
    assert all(device.examples == 80 for r in campaign.history for device in r.devices)


@pytest.mark.parametrize(
    ("strategy", "settings"), [("fedper", {"local": "2"}), ("fedrep", {"local": "2"}), ("ditto", {"strength": "0.1"})]
)
def test_each_devices_own_model_is_measured_on_what_it_holds_out_and_told(
    tmp_path: Path, strategy: str, settings: dict[str, str]
) -> None:
    world = World(tmp_path)
    for number, data in enumerate(list(load_task("digits").device_slices().values())[:DEVICES]):
        world.add(f"device-{number}", real_client(data))
    world.ask(rounds=4, strategy=strategy, strategy_settings=settings)

    world.run()

    campaign = world.campaign()
    first, newest = campaign.history[0], campaign.history[-1]
    assert first.personal_accuracy is not None
    assert newest.personal_accuracy is not None
    each = [device.metrics["personal-accuracy"] for device in newest.devices]
    assert newest.personal_accuracy == pytest.approx(sum(each) / DEVICES)
    assert newest.personal_accuracy > first.personal_accuracy
    (row, *_) = campaign_views.outcome_table(newest).rows
    assert row.cells[campaign_views.OUTCOME_COLUMNS.index("own model")].text == f"{each[0] * 100:.1f} %"
