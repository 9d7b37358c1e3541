"""The job `campaign`: federated rounds over the fleet, from a starting model to a registered one.

Run again after any crash, it goes on in the same round, with the same work and the replies that came meanwhile.
"""

import secrets
from collections.abc import Callable

from cloud.campaigns.doorbells import Doorbells
from cloud.campaigns.journal import Journal
from cloud.jobs.context import JobContext, JsonObject


def run(context: JobContext, spec: JsonObject) -> JsonObject:
    """The registered version's id and metrics; of a Flower app, what it left behind. `spec` has `campaign_id`."""
    return run_campaign(context, str(spec["campaign_id"]), sleep=context.sleep)


def run_campaign(
    context: JobContext,
    campaign_id: str,
    *,
    sleep: Callable[[float], None],
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> JsonObject:
    """The same, with the waiting done by `sleep`; only tests bring other randomness."""
    # Flower and torch cost a second and 300 MB: only the worker that runs a campaign pays for them.
    from cloud.campaigns.flower.runtime import prepare_flower

    prepare_flower(campaign_id)
    campaign = Journal(context.sessions, campaign_id, now=context.now).campaign()
    with Doorbells(context.open_hub) as doorbells:
        if campaign.flower is not None:
            from cloud.campaigns.flower.server_app import run_server_app

            return run_server_app(context, campaign, ring=doorbells.ring, sleep=sleep)
        from cloud.campaigns.runner import CampaignRunner

        runner = CampaignRunner(context, campaign_id, ring=doorbells.ring, sleep=sleep, random_bytes=random_bytes)
        version = runner.run()
    return {"model_version_id": version.model_version_id, **version.metrics}
