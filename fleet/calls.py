"""Every request an operator can make, once: method, route, what goes up and what comes back.

A call is a value. The blocking client of the commands and the asynchronous one of the terminal app both send it, and a
test holds this table against the coordinator's own routes:

    client.send(calls.device("press-07"))          # -> Device
    await client.send(calls.device("press-07"))    # -> Device
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from shared.api.alerts import Alert, ServingWindow
from shared.api.analytics import Analysis, AnalysisCreate
from shared.api.campaigns import Campaign, CampaignClone, CampaignCreate, FlowerCampaignCreate
from shared.api.devices import Device
from shared.api.enrolment import TokenCreate, TokenCreated
from shared.api.jobs import Job, TrainingCreate
from shared.api.models import ModelVersion
from shared.api.privacy import PrivacyAccount
from shared.api.releases import Release, ReleaseCreate, SignedTargets, SigningRequest
from shared.api.rollouts import Rollout, RolloutCreate
from shared.api.traces import Trace

AnswerT = TypeVar("AnswerT")

LIST_MAX = 1000
"""The longest list the coordinator gives at once."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[AnswerT]):
    """One request, not yet sent."""

    method: str
    route: str
    """The path as the coordinator declares it, with `{names}`."""
    answer: type[AnswerT]
    names: Mapping[str, str] = field(default_factory=dict)
    """Values of the names in the route."""
    query: Mapping[str, str | int] = field(default_factory=dict)
    body: BaseModel | None = None

    @property
    def path(self) -> str:
        """The route with its names filled in, each as one percent-encoded segment."""
        return self.route.format_map({name: quote(value, safe="") for name, value in self.names.items()})


def create_token(request: TokenCreate) -> Call[TokenCreated]:
    return Call(method="POST", route="/v1/tokens", answer=TokenCreated, body=request)


def devices(*, limit: int = LIST_MAX) -> Call[list[Device]]:
    return Call(method="GET", route="/v1/devices", answer=list[Device], query={"limit": limit})


def device(device_id: str) -> Call[Device]:
    return Call(method="GET", route="/v1/devices/{device_id}", answer=Device, names={"device_id": device_id})


def privacy(*, device_id: str = "", limit: int = LIST_MAX) -> Call[list[PrivacyAccount]]:
    query: dict[str, str | int] = {"limit": limit, **({"device_id": device_id} if device_id else {})}
    return Call(method="GET", route="/v1/privacy", answer=list[PrivacyAccount], query=query)


def accept_ledger(device_id: str) -> Call[Device]:
    names = {"device_id": device_id}
    return Call(method="POST", route="/v1/devices/{device_id}/accept-ledger", answer=Device, names=names)


def revoke_device(device_id: str) -> Call[None]:
    return Call(method="DELETE", route="/v1/devices/{device_id}", answer=NoneType, names={"device_id": device_id})


def serving_windows(device_id: str, *, limit: int = 120) -> Call[list[ServingWindow]]:
    return Call(
        method="GET",
        route="/v1/serving-windows",
        answer=list[ServingWindow],
        query={"device_id": device_id, "limit": limit},
    )


def start_training(request: TrainingCreate) -> Call[Job]:
    return Call(method="POST", route="/v1/trainings", answer=Job, body=request)


def jobs(*, limit: int = 20) -> Call[list[Job]]:
    return Call(method="GET", route="/v1/jobs", answer=list[Job], query={"limit": limit})


def job(job_id: str) -> Call[Job]:
    return Call(method="GET", route="/v1/jobs/{job_id}", answer=Job, names={"job_id": job_id})


def cancel_job(job_id: str) -> Call[Job]:
    return Call(method="POST", route="/v1/jobs/{job_id}/cancel", answer=Job, names={"job_id": job_id})


def models(*, limit: int = 100) -> Call[list[ModelVersion]]:
    return Call(method="GET", route="/v1/models", answer=list[ModelVersion], query={"limit": limit})


def model(model_version_id: str) -> Call[ModelVersion]:
    names = {"model_version_id": model_version_id}
    return Call(method="GET", route="/v1/models/{model_version_id}", answer=ModelVersion, names=names)


def approve_model(model_version_id: str) -> Call[ModelVersion]:
    names = {"model_version_id": model_version_id}
    return Call(method="POST", route="/v1/models/{model_version_id}/approve", answer=ModelVersion, names=names)


def retire_model(model_version_id: str) -> Call[ModelVersion]:
    names = {"model_version_id": model_version_id}
    return Call(method="POST", route="/v1/models/{model_version_id}/retire", answer=ModelVersion, names=names)


def create_campaign(request: CampaignCreate) -> Call[Campaign]:
    return Call(method="POST", route="/v1/campaigns", answer=Campaign, body=request)


def create_flower_campaign(request: FlowerCampaignCreate) -> Call[Campaign]:
    return Call(method="POST", route="/v1/campaigns/flower", answer=Campaign, body=request)


def plan_campaign(request: CampaignCreate) -> Call[Campaign]:
    return Call(method="POST", route="/v1/campaigns/plan", answer=Campaign, body=request)


def campaigns(*, limit: int = 100) -> Call[list[Campaign]]:
    return Call(method="GET", route="/v1/campaigns", answer=list[Campaign], query={"limit": limit})


def campaign(campaign_id: str) -> Call[Campaign]:
    return Call(method="GET", route="/v1/campaigns/{campaign_id}", answer=Campaign, names={"campaign_id": campaign_id})


def trace(*, limit: int = 10_000) -> Call[Trace]:
    return Call(method="GET", route="/v1/campaigns/trace", answer=Trace, query={"limit": limit})


def clone_campaign(campaign_id: str, changes: CampaignClone) -> Call[Campaign]:
    names = {"campaign_id": campaign_id}
    return Call(method="POST", route="/v1/campaigns/{campaign_id}/clone", answer=Campaign, names=names, body=changes)


def pause_campaign(campaign_id: str) -> Call[Campaign]:
    names = {"campaign_id": campaign_id}
    return Call(method="POST", route="/v1/campaigns/{campaign_id}/pause", answer=Campaign, names=names)


def resume_campaign(campaign_id: str) -> Call[Campaign]:
    names = {"campaign_id": campaign_id}
    return Call(method="POST", route="/v1/campaigns/{campaign_id}/resume", answer=Campaign, names=names)


def cancel_campaign(campaign_id: str) -> Call[Campaign]:
    names = {"campaign_id": campaign_id}
    return Call(method="POST", route="/v1/campaigns/{campaign_id}/cancel", answer=Campaign, names=names)


def create_analysis(request: AnalysisCreate) -> Call[Analysis]:
    return Call(method="POST", route="/v1/analyses", answer=Analysis, body=request)


def analyses(*, limit: int = 100) -> Call[list[Analysis]]:
    return Call(method="GET", route="/v1/analyses", answer=list[Analysis], query={"limit": limit})


def analysis(analysis_id: str) -> Call[Analysis]:
    return Call(method="GET", route="/v1/analyses/{analysis_id}", answer=Analysis, names={"analysis_id": analysis_id})


def cancel_analysis(analysis_id: str) -> Call[Analysis]:
    names = {"analysis_id": analysis_id}
    return Call(method="POST", route="/v1/analyses/{analysis_id}/cancel", answer=Analysis, names=names)


def package_release(request: ReleaseCreate) -> Call[Job]:
    return Call(method="POST", route="/v1/releases", answer=Job, body=request)


def releases(*, limit: int = 100) -> Call[list[Release]]:
    return Call(method="GET", route="/v1/releases", answer=list[Release], query={"limit": limit})


def release(release_id: str) -> Call[Release]:
    return Call(method="GET", route="/v1/releases/{release_id}", answer=Release, names={"release_id": release_id})


def request_signing(release_id: str) -> Call[SigningRequest]:
    names = {"release_id": release_id}
    return Call(method="POST", route="/v1/releases/{release_id}/signing-request", answer=SigningRequest, names=names)


def publish_release(release_id: str, signed: SignedTargets) -> Call[Release]:
    names = {"release_id": release_id}
    return Call(method="POST", route="/v1/releases/{release_id}/publish", answer=Release, names=names, body=signed)


def plan_rollout(request: RolloutCreate) -> Call[Rollout]:
    return Call(method="POST", route="/v1/rollouts", answer=Rollout, body=request)


def rollouts(*, limit: int = 100) -> Call[list[Rollout]]:
    return Call(method="GET", route="/v1/rollouts", answer=list[Rollout], query={"limit": limit})


def rollout(rollout_id: str) -> Call[Rollout]:
    return Call(method="GET", route="/v1/rollouts/{rollout_id}", answer=Rollout, names={"rollout_id": rollout_id})


def start_rollout(rollout_id: str) -> Call[Rollout]:
    return _steer_rollout(rollout_id, "start")


def stop_rollout(rollout_id: str) -> Call[Rollout]:
    return _steer_rollout(rollout_id, "stop")


def resume_rollout(rollout_id: str) -> Call[Rollout]:
    return _steer_rollout(rollout_id, "resume")


def _steer_rollout(rollout_id: str, verb: str) -> Call[Rollout]:
    names = {"rollout_id": rollout_id}
    return Call(method="POST", route=f"/v1/rollouts/{{rollout_id}}/{verb}", answer=Rollout, names=names)


def alerts(*, only_open: bool = False, limit: int = 100) -> Call[list[Alert]]:
    query: dict[str, str | int] = {"limit": limit}
    if only_open:
        query["open"] = "true"
    return Call(method="GET", route="/v1/alerts", answer=list[Alert], query=query)


def alert(alert_id: str) -> Call[Alert]:
    return Call(method="GET", route="/v1/alerts/{alert_id}", answer=Alert, names={"alert_id": alert_id})


def close_alert(alert_id: str) -> Call[Alert]:
    return Call(method="POST", route="/v1/alerts/{alert_id}/close", answer=Alert, names={"alert_id": alert_id})
