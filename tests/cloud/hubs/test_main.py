"""`fleetlearn hub`: the local hub's commands, and those of other hubs beside them."""

import pytest

from cloud.hubs.__main__ import main


def test_access_lists_are_printed_for_each_broker_and_name_the_fleet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["acl", "--broker", "mosquitto", "--fleet", "plant-7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "pattern write fleetlearn/plant-7/devices/%u/up/#" in lines
    assert "pattern read fleetlearn/plant-7/devices/%u/down/#" in lines
    assert not any(line.startswith("topic readwrite") for line in lines)
    assert main(["acl", "--broker", "emqx"]) == 0
    rules = capsys.readouterr().out.splitlines()
    assert '{allow, all, publish, ["fleetlearn/main/devices/${username}/up/#"]}.' in rules
    assert rules[-1] == "{deny, all}."


def test_the_local_hubs_own_commands_are_still_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("serve", "connection-string", "acl"))
    assert main(["acl", "--broker", "telegraph"]) == 2
