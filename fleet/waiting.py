"""Waiting for work in the cloud, with bounds: how long in all, and how long a coordinator may be away meanwhile."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fleet import calls
from fleet.calls import Call
from fleet.client import CoordinatorClient
from fleet.errors import CoordinatorUnreachableError, JobFailedError, WaitTimedOutError
from shared.api.analytics import Analysis
from shared.api.campaigns import Campaign
from shared.api.jobs import Job
from shared.lifecycles import JobState

AnswerT = TypeVar("AnswerT")

FINAL_STATES = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait, and by which clock."""

    timeout_s: float = 3600
    away_s_max: float = 60
    """A coordinator may restart while we wait; its durable work goes on afterwards."""
    poll_s: float = 1
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def wait_for(
    client: CoordinatorClient,
    call: Call[AnswerT],
    *,
    is_over: Callable[[AnswerT], bool],
    on_progress: Callable[[AnswerT], None] = lambda _: None,
    patience: Patience | None = None,
) -> AnswerT:
    """The first answer that is over; every answer on the way goes to `on_progress`.

    Raises WaitTimedOutError, ApiError, or CoordinatorUnreachableError after `away_s_max` without an answer.
    """
    limits = patience or Patience()
    deadline = limits.monotonic() + limits.timeout_s
    heard_at = limits.monotonic()
    while limits.monotonic() < deadline:
        try:
            answer = client.send(call)
        except CoordinatorUnreachableError:
            if limits.monotonic() - heard_at > limits.away_s_max:
                raise
        else:
            heard_at = limits.monotonic()
            on_progress(answer)
            if is_over(answer):
                return answer
        limits.sleep(limits.poll_s)
    raise WaitTimedOutError(
        f"Expected an end within {limits.timeout_s:.0f} s, it is still going on",
        hint="It goes on without this command; look again with `show`.",
    )


def wait_for_job(
    client: CoordinatorClient,
    job_id: str,
    *,
    on_progress: Callable[[Job], None] = lambda _: None,
    patience: Patience | None = None,
) -> Job:
    """The job when it is done. Raises JobFailedError when it failed or was cancelled, and what `wait_for` raises."""
    job = wait_for(
        client,
        calls.job(job_id),
        is_over=lambda job: job.state in FINAL_STATES,
        on_progress=on_progress,
        patience=patience,
    )
    if job.state is not JobState.DONE:
        raise JobFailedError(job.error or f"The job {job.kind} was {job.state.value}", hint=job.hint)
    return job


def wait_for_campaign(
    client: CoordinatorClient,
    campaign_id: str,
    *,
    on_progress: Callable[[Campaign], None] = lambda _: None,
    patience: Patience | None = None,
) -> Campaign:
    """The campaign when it is done. Raises JobFailedError when it failed or was cancelled, and what `wait_for` does."""
    campaign = wait_for(
        client,
        calls.campaign(campaign_id),
        is_over=lambda campaign: campaign.state in FINAL_STATES,
        on_progress=on_progress,
        patience=patience,
    )
    if campaign.state is not JobState.DONE:
        raise JobFailedError(
            campaign.error or f"The campaign was {campaign.state.value}",
            hint=f"`fleetlearn campaigns show {campaign_id}` has every round.",
        )
    return campaign


def wait_for_analysis(client: CoordinatorClient, analysis_id: str, *, patience: Patience | None = None) -> Analysis:
    """The analysis with its answer. Raises JobFailedError when it failed or was cancelled, and what `wait_for` does."""
    analysis = wait_for(
        client,
        calls.analysis(analysis_id),
        is_over=lambda analysis: analysis.state in FINAL_STATES,
        patience=patience,
    )
    if analysis.state is not JobState.DONE:
        raise JobFailedError(
            analysis.error or f"The analysis was {analysis.state.value}",
            hint=f"`fleetlearn analytics show {analysis_id}` says what each device did.",
        )
    return analysis
