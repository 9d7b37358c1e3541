"""Which coordinator, and as whom: flags win, and a token never goes to a URL it was not meant for."""

from pathlib import Path

import pytest

from fleet.errors import ProfileError
from fleet.profile import Flags, read_profile


def data_dir(tmp_path: Path, *, settings: str = 'address = "127.0.0.7"\nport = 9444\n') -> Path:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "ca.pem").write_text("pem")
    (tmp_path / "operator.token").write_text("from-data\n")
    (tmp_path / "settings.toml").write_text(settings)
    return tmp_path


def test_a_data_directory_gives_all_three(tmp_path: Path) -> None:
    profile = read_profile(Flags(data=data_dir(tmp_path)), {})
    assert (profile.url, profile.token) == ("https://127.0.0.7:9444", "from-data")
    assert profile.ca_file == tmp_path / "pki" / "ca.pem"


def test_without_settings_the_coordinators_defaults_hold(tmp_path: Path) -> None:
    (data_dir(tmp_path) / "settings.toml").unlink()
    assert read_profile(Flags(data=tmp_path), {}).url == "https://127.0.0.1:8444"


def test_one_that_listens_everywhere_is_dialled_here(tmp_path: Path) -> None:
    data = data_dir(tmp_path, settings='address = "0.0.0.0"\n')
    assert read_profile(Flags(data=data), {}).url == "https://127.0.0.1:8444"


def test_flags_win_over_the_directory_and_that_over_the_environment(tmp_path: Path) -> None:
    environ = {"FLEETLEARN_URL": "https://env:1", "FLEETLEARN_TOKEN": "from-env"}
    assert read_profile(Flags(data=data_dir(tmp_path)), environ).token == "from-data"
    assert read_profile(Flags(data=tmp_path, url="https://flag:2/"), environ).url == "https://flag:2"
    assert read_profile(Flags(), environ).token == "from-env"


def test_the_default_directorys_token_goes_to_no_other_url(tmp_path: Path) -> None:
    environ = {"FLEETLEARN_DATA_DIR": str(data_dir(tmp_path))}
    assert read_profile(Flags(), environ).token == "from-data"
    with pytest.raises(ProfileError, match="token"):
        read_profile(Flags(url="https://elsewhere:8444"), environ)


def test_a_token_file_that_is_none_is_said_without_its_content(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("two words\n")
    with pytest.raises(ProfileError, match="got something else") as caught:
        read_profile(Flags(url="https://x", token_file=wrong), {})
    assert "two words" not in str(caught.value)


def test_nothing_at_all_names_the_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProfileError) as caught:
        read_profile(Flags(), {})
    assert "fleetlearn up" in caught.value.hint


def test_a_profile_does_not_show_its_token() -> None:
    profile = read_profile(Flags(), {"FLEETLEARN_URL": "https://x", "FLEETLEARN_TOKEN": "secret-one"})
    assert "secret-one" not in repr(profile)
