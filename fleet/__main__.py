"""The operator's subcommands of `fleetlearn`. Only the chosen one's module is loaded; Textual only for `tui`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleet.commands.common import Surroundings


def devices(argv: list[str], surroundings: Surroundings | None = None) -> int:
    return _run("devices", argv, surroundings)


def analytics(argv: list[str], surroundings: Surroundings | None = None) -> int:
    return _run("analytics", argv, surroundings)


def campaigns(argv: list[str], surroundings: Surroundings | None = None) -> int:
    return _run("campaigns", argv, surroundings)


def models(argv: list[str], surroundings: Surroundings | None = None) -> int:
    return _run("models", argv, surroundings)


def releases(argv: list[str], surroundings: Surroundings | None = None) -> int:
    return _run("releases", argv, surroundings)


def rollouts(argv: list[str], surroundings: Surroundings | None = None) -> int:
    return _run("rollouts", argv, surroundings)


def alerts(argv: list[str], surroundings: Surroundings | None = None) -> int:
    return _run("alerts", argv, surroundings)


def tokens(argv: list[str], surroundings: Surroundings | None = None) -> int:
    return _run("tokens", argv, surroundings)


def keys(argv: list[str], surroundings: Surroundings | None = None) -> int:
    return _run("keys", argv, surroundings)


def tui(argv: list[str], surroundings: Surroundings | None = None) -> int:
    return _run("tui", argv, surroundings)


def _run(name: str, argv: list[str], surroundings: Surroundings | None) -> int:
    # Deferred: `fleetlearn --help` and each command load only what they use.
    from importlib import import_module

    from fleet.commands.common import Surroundings, run

    return run(import_module(f"fleet.commands.{name}").app, name, argv, surroundings or Surroundings())
