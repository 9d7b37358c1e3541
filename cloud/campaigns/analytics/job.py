"""The job `analysis`: one question to the fleet. Run again after any crash, it goes on in the same round."""

import secrets
import time
from collections.abc import Callable

from cloud.campaigns.doorbells import Doorbells
from cloud.jobs.context import JobContext, JsonObject


def run(context: JobContext, spec: JsonObject) -> JsonObject:
    """The answer. `spec` has `campaign_id`."""
    return run_analysis(context, str(spec["campaign_id"]), sleep=time.sleep)


def run_analysis(context: JobContext, analysis_id: str, *, sleep: Callable[[float], None]) -> JsonObject:
    """The same, with the waiting done by `sleep`."""
    # torch costs a second: only the worker that runs an analysis pays for it.
    from cloud.campaigns.analytics.runner import AnalysisRunner

    with Doorbells(context.open_hub) as doorbells:
        runner = AnalysisRunner(
            context, analysis_id, ring=doorbells.ring, sleep=sleep, random_bytes=secrets.token_bytes
        )
        found = runner.answer()
    return found.model_dump()
