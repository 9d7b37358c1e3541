"""The page of commands is the commands' own help."""

from tests.fleet.cli_reference import PAGE, page


def test_the_reference_is_complete_and_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.fleet.cli_reference`"
