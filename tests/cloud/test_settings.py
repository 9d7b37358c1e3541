"""Settings: flags before environment before file before defaults; every one documented."""

from pathlib import Path

import pytest

from cloud.settings import InvalidSettingError, Settings, read_settings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


def test_flags_win_over_the_environment_over_the_file_over_defaults(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('port = 1\nhub_rest_port = 1\nheartbeat_s = 1\nserver_names = ["a"]\n')
    environment = {"FLEETLEARN_PORT": "2", "FLEETLEARN_HUB_REST_PORT": "2", "FLEETLEARN_SERVER_NAMES": "b, c"}
    settings = read_settings({"data_dir": tmp_path, "port": 3, "address": None}, environment)
    found = (settings.port, settings.hub_rest_port, settings.heartbeat_s, settings.server_names, settings.address)
    assert found == (3, 2, 1, ("b", "c"), "127.0.0.1")


@pytest.mark.parametrize("content", ["port = 'x'", "port = 0", "no_such = 1", "= broken", "log_level = 'loud'"])
def test_a_wrong_file_is_refused_in_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.toml").write_text(content)
    with pytest.raises(InvalidSettingError, match="Expected"):
        read_settings({"data_dir": tmp_path}, {})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"hub": "mqtt://broker/plant"}, "mqtts://HOST"),
        ({"hub_for_devices": "broker"}, "mqtts://HOST"),
        ({"hub_for_devices": "mqtts://broker"}, "give hub too"),
        ({"hub": "mqtts://broker", "hub_connection_string": "HostName=h"}, "not both"),
    ],
)
def test_a_hub_that_is_none_or_two_is_refused(given: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match=says):
        read_settings({"data_dir": tmp_path, **given}, {})


def test_a_broker_is_no_local_hub_and_devices_may_dial_another_way(tmp_path: Path) -> None:
    settings = read_settings({"data_dir": tmp_path, "hub": "mqtts://broker:8884/plant"}, {})
    assert (settings.has_local_hub, settings.device_hub) == (False, "mqtts://broker:8884/plant")
    outside = settings.model_copy(update={"hub_for_devices": "mqtts://outside:8883/plant"})
    assert outside.device_hub == "mqtts://outside:8883/plant"
    assert read_settings({"data_dir": tmp_path}, {}).has_local_hub


def test_every_setting_is_in_the_reference_with_its_default() -> None:
    rows = {
        line.split("|")[1].strip().strip("`"): line for line in PAGE.read_text().splitlines() if line.startswith("| `")
    }
    assert list(rows) == list(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        if not field.is_required():
            shown = ",".join(field.default) if isinstance(field.default, tuple) else f"{field.default}"
            assert f"| `{shown}` |" in rows[name] or (shown == "" and "| empty |" in rows[name]), name
