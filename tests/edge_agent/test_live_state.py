"""What a device says of itself is what its system's files say, and nothing where they say nothing."""

import os
from pathlib import Path

from edge_agent.live_state import live_state
from shared.messages.events import Heartbeat, LiveState


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_an_empty_system_says_nothing(tmp_path: Path) -> None:
    assert live_state(root=tmp_path) == LiveState()


def test_a_laptop_on_its_battery_over_wifi(tmp_path: Path) -> None:
    write(
        tmp_path,
        sys__class__power_supply__BAT0__type="Battery\n",
        sys__class__power_supply__BAT0__capacity="42\n",
        sys__class__power_supply__BAT0__status="Discharging\n",
        sys__class__power_supply__AC__type="Mains\n",
        sys__class__power_supply__AC__online="0\n",
        sys__class__power_supply__mouse__type="Battery\n",
        sys__class__power_supply__mouse__scope="Device\n",
        sys__class__power_supply__mouse__capacity="3\n",
        sys__class__thermal__thermal_zone0__temp="41000\n",
        sys__class__thermal__thermal_zone1__temp="63500\n",
        sys__class__thermal__thermal_zone2__temp="-274000\n",
        proc__meminfo="MemTotal:  8000000 kB\nMemAvailable:   2000000 kB\n",
        proc__net__route=(
            "Iface Destination Gateway Flags RefCnt Use Metric Mask\n"
            "eth0 00000000 0102A8C0 0003 0 0 700 00000000\n"
            "wlan0 00000000 0102A8C0 0003 0 0 600 00000000\n"
            "wlan0 0000A8C0 00000000 0001 0 0 600 00FFFFFF\n"
        ),
        sys__class__net__wlan0__uevent="DEVTYPE=wlan\n",
    )
    assert live_state(root=tmp_path) == LiveState(
        battery=0.42, is_charging=False, network="wifi", temperature_c=63.5, memory_free_bytes=2_048_000_000
    )


def test_a_gateway_on_a_modem_without_a_battery(tmp_path: Path) -> None:
    write(
        tmp_path,
        sys__class__power_supply__AC__type="Mains\n",
        sys__class__power_supply__AC__online="1\n",
        proc__net__route="Iface D G F R U M\nwwan0 00000000 0 0003 0 0 100 0\n",
        proc__meminfo="MemAvailable: nonsense\n",
    )
    assert live_state(root=tmp_path) == LiveState(network="cellular")


def test_a_charging_battery_is_on_power(tmp_path: Path) -> None:
    write(
        tmp_path,
        sys__class__power_supply__b__type="Battery",
        sys__class__power_supply__b__capacity="180",
        sys__class__power_supply__b__status="Charging",
    )
    assert live_state(root=tmp_path) == LiveState(battery=1.0, is_charging=True)


def test_data_are_as_old_as_their_newest_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(data, old="x", deep__new="y")
    for name, at in (("old", 1000), ("deep/new", 5000), ("deep", 1000)):
        os.utime(data / name, (at, at))
    assert live_state(data_dir=data, root=tmp_path, now=5600.0).data_age_s == 600
    assert live_state(data_dir=data, root=tmp_path, now=10.0).data_age_s == 0
    assert live_state(data_dir=tmp_path / "none", root=tmp_path, now=1.0).data_age_s is None


def test_this_very_machine_can_be_read() -> None:
    Heartbeat(agent_version="1", live=live_state(data_dir=Path("/proc/self")))


def test_a_heartbeat_of_an_older_agent_says_nothing_of_it() -> None:
    assert Heartbeat.parse_document({"agent_version": "1"}).live == LiveState()
