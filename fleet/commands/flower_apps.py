"""`campaigns start --flower-app`: what is asked of the coordinator for somebody's Flower app."""

from pathlib import Path

import click
from click.core import ParameterSource

from fleet.commands.campaign_options import Audience, Learning
from fleet.commands.common import build
from shared.api.campaigns import FlowerCampaignCreate, FlowerRun
from shared.flower_apps import InvalidFlowerAppError, read_app, run_config

_DECIDED_BY_THE_APP = (
    "task",
    "model",
    "rounds",
    "epsilon",
    "delta",
    "strategy",
    "compression",
    "secure",
    "secure_min",
    "quorum",
)


def flower_request(
    folder: Path, *, learning: Learning, audience: Audience, start_at: float | None
) -> FlowerCampaignCreate:
    """The request for the app in this folder, whose files are read and not sent.

    Raises InvalidFlowerAppError, or click.UsageError for an option that is the app's to decide.
    """
    for name in _DECIDED_BY_THE_APP:
        if _is_given(name):
            raise click.UsageError(f"Expected no {name.replace('_', '-')} with --flower-app: the app decides that")
    app = read_app(folder)
    overrides = _overrides(learning.settings or [])
    run_config(app, overrides)  # a wrong key is better said here than by the coordinator
    return build(
        FlowerCampaignCreate,
        flower=FlowerRun(app=app.name, version=app.version, digest=app.digest, config=overrides),
        devices=audience.device or [],
        selection=audience.rules(),
        seed=learning.seed,
        start_at=start_at,
        **({"round_timeout_s": audience.round_timeout_s} if _is_given("round_timeout_s") else {}),
    )


def _overrides(pairs: list[str]) -> dict[str, str]:
    """Flat, as Flower's configurations are: a dot in a key stays one."""
    found = [pair.partition("=") for pair in pairs]
    if bad := next((key for key, separator, _ in found if not key or not separator), None):
        raise InvalidFlowerAppError(f"Expected a setting as key=value, got {bad[:80]!r}")
    return {key.strip(): value.strip() for key, _, value in found}


def _is_given(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE
