"""What the demonstration refuses before it writes or starts anything, each in one sentence."""

import socket
from pathlib import Path

import pytest

from shared.cli import main
from simulations.demo.folder import claimed
from simulations.demo.options import HUB_REST_PORT, DemoError, parse, refuse_taken_ports

ADDRESS = "127.0.0.73"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--rounds", "0"),
        ("--rounds", "-1"),
        ("--rounds", "many"),
        ("--epsilon", "0"),
        ("--epsilon", "-1"),
        ("--epsilon", "nan"),
        ("--epsilon", "inf"),
        ("--epsilon", "10.5"),
        ("--address", "192.0.2.1"),
        ("--address", "localhost"),
        ("--devices", "few"),
    ],
)
def test_refuses_a_value_that_makes_no_sense(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([f"{option}={value}"])
    assert ended.value.code == 2
    assert option in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("count", ["0", "11"])
def test_refuses_more_devices_than_there_is_data(
    count: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--task", "digits", "--devices", count, "--data", str(tmp_path / "data")]) == 1
    assert f"Expected 1 to 10 devices, one slice of data each at least, got {count}" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_refuses_a_task_that_is_not_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--task", "nope"]) == 1
    assert "Expected an installed task" in capsys.readouterr().err


def test_says_which_port_is_taken_and_what_to_do() -> None:
    refused_with = pytest.raises(DemoError, match=f"port {HUB_REST_PORT} of {ADDRESS} free")
    with socket.create_server((ADDRESS, HUB_REST_PORT)), refused_with as refused:
        refuse_taken_ports(ADDRESS)
    assert "--address" in refused.value.hint
    refuse_taken_ports(ADDRESS)


def test_leaves_somebody_elses_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DemoError, match="got other files"), claimed(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_refuses_a_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DemoError, match="Expected a folder"), claimed(path):
            pass


def test_empties_an_earlier_demonstrations_folder(tmp_path: Path) -> None:
    with claimed(tmp_path / "data"):
        (tmp_path / "data" / "cloud").mkdir()
        (tmp_path / "data" / "summary.json").touch()
    with claimed(tmp_path / "data"):
        assert [path.name for path in (tmp_path / "data").iterdir()] == [".fleetlearn-demo"]


def test_never_empties_the_folder_of_a_running_demonstration(tmp_path: Path) -> None:
    with claimed(tmp_path):
        (tmp_path / "precious").touch()
        with pytest.raises(DemoError, match="running demonstration"), claimed(tmp_path):
            pass
        assert (tmp_path / "precious").exists()


def test_removes_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.txt").touch()
    with claimed(tmp_path / "data"):
        (tmp_path / "data" / "link").symlink_to(outside)
    with claimed(tmp_path / "data"):
        assert not (tmp_path / "data" / "link").exists()
    assert (outside / "thesis.txt").exists()
