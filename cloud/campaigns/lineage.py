"""Where a campaign's result came from, as the registry keeps it. Pure."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from cloud.campaigns.models import CampaignRow, RoundRow
from cloud.campaigns.rounds import Answer, RoundState


def lineage_of(campaign: CampaignRow, tries: Sequence[RoundRow], *, job_id: str) -> dict[str, Any]:  # Any: JSON
    """Parent, rounds, devices, privacy and bytes: everything but the weights themselves."""
    done = [row for row in tries if row.state == RoundState.DONE]
    return {
        "campaign_id": campaign.campaign_id,
        "job_id": job_id,
        "parent": campaign.start_model_version_id,
        "task": campaign.task,
        "task_version": campaign.task_version,
        "strategy": campaign.strategy,
        "seed": campaign.seed,
        "rounds_asked": campaign.rounds,
        "rounds_done": len(done),
        "tries_abandoned": sum(1 for row in tries if row.state == RoundState.ABANDONED),
        "devices": _rounds_by_device(done),
        "privacy": campaign.privacy,
        "privacy_spent": _privacy_by_device(tries),
        "bytes_down": sum(row.bytes_down for row in tries),
        "bytes_up": sum(row.bytes_up for row in tries),
        "code_version": version("fleetlearn"),
    }


def _rounds_by_device(done: Sequence[RoundRow]) -> dict[str, list[int]]:
    """The rounds whose model holds each device's update."""
    rounds: dict[str, list[int]] = {}
    for row in done:
        for outcome in row.outcomes:
            if outcome["status"] == Answer.DONE:
                rounds.setdefault(outcome["device_id"], []).append(row.round)
    return rounds


def _privacy_by_device(tries: Sequence[RoundRow]) -> dict[str, Any]:  # Any: JSON of PrivacySpent
    """What each device's ledger said last."""
    outcomes = [outcome for row in tries for outcome in row.outcomes]
    return {outcome["device_id"]: outcome["privacy"] for outcome in outcomes if outcome["privacy"]}
