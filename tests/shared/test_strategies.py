from typing import Any

import pytest
from pydantic import TypeAdapter

from shared.strategies import (
    STRATEGIES,
    FedAdamSettings,
    FedPerSettings,
    StrategySettingError,
    StrategySettings,
    UnknownStrategyError,
    assignments,
    strategy,
)


def test_settings_that_are_not_said_have_defaults() -> None:
    assert strategy("fedadam", {"beta1": 0.5}) == FedAdamSettings(beta1=0.5, beta2=0.99, server_learning_rate=0.1)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_survives_being_a_document(name: str) -> None:
    chosen = strategy(name, {"local": ["head."]} if name in ("fedper", "fedrep") else {})
    assert TypeAdapter[StrategySettings](StrategySettings).validate_json(chosen.model_dump_json()) == chosen
    assert strategy(name, chosen.model_dump()) == chosen


def test_settings_come_from_a_command_line() -> None:
    chosen = strategy("fednova", assignments(["momentum=0.9", "server.name=adam", "server.beta1=0.5"]))
    assert chosen == strategy("fednova", {"momentum": 0.9, "server": {"name": "adam", "beta1": 0.5}})
    assert strategy("fedavg", assignments(["server.momentum=0.9"])) == strategy(
        "fedavg", {"server": {"name": "sgd", "momentum": 0.9}}
    )
    local = strategy("fedper", assignments(["local=head.,norm."]))
    assert isinstance(local, FedPerSettings)
    assert local.local == ("head.", "norm.")


def test_an_unknown_strategy_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownStrategyError, match=r"ditto, fedadagrad.*got 'fedsgd'"):
        strategy("fedsgd")


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("fedavgm", {"server_momentum": 1.5}, "Expected 'server_momentum' of fedavgm from 0 and below 1, got 1.5"),
        ("fedavgm", {"server_momentum": "x"}, "Expected 'server_momentum' of fedavgm from 0 and below 1, got x"),
        ("fedavgm", {"momentum": 0.5}, "among server_learning_rate, server_momentum, got 'momentum'"),
        ("fednova", {"server": {"name": "adam", "beta1": 2}}, "Expected 'server.beta1' of fednova from 0 and below 1"),
        ("fednova", {"server": {"name": "adam", "beta": 2}}, "got 'server.beta'"),
        ("fednova", {"server": {"name": "sgdd"}}, "Expected 'server' of fednova: .*'sgd', 'adagrad', 'adam', 'yogi'"),
        ("fedper", {}, "Expected 'local' of fedper, which has no default"),
        ("fedavgm", {"server_momentum": float("nan")}, "got nan"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_may_be(name: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(StrategySettingError, match=sentence):
        strategy(name, settings)


@pytest.mark.parametrize("pairs", [["momentum"], ["=3"], ["server=adam", "server.beta1=0.5"]])
def test_what_is_no_assignment_is_refused(pairs: list[str]) -> None:
    with pytest.raises(StrategySettingError):
        assignments(pairs)
