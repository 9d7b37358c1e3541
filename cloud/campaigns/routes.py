"""Campaigns over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, status

from cloud.auth.operators import Principal, require_operator
from cloud.campaigns import service
from cloud.campaigns.accounts.service import expected_refusals
from cloud.campaigns.launch import launch
from cloud.campaigns.planning import Plan
from cloud.db import reading
from cloud.dependencies import Limit, services
from cloud.governance.service import record
from cloud.services import Services
from shared.api.campaigns import Campaign, CampaignClone, CampaignCreate, FlowerCampaignCreate
from shared.api.traces import Trace

router = APIRouter(prefix="/v1/campaigns", tags=["campaigns"], dependencies=[Depends(require_operator)])
_Services = Annotated[Services, Depends(services)]
_Operator = Annotated[Principal, Depends(require_operator)]
TraceLimit = Annotated[int, Query(ge=1, le=50_000, description="pieces of work, the newest; and as many reports")]


@router.post("", status_code=status.HTTP_201_CREATED)
def create_campaign(asked: CampaignCreate, services: _Services, principal: _Operator) -> Campaign:
    """Starts federated rounds over the fleet, from a model version."""
    return _create(asked, services, principal, action="campaign.create")


@router.post("/flower", status_code=status.HTTP_201_CREATED)
def create_flower_campaign(asked: FlowerCampaignCreate, services: _Services, principal: _Operator) -> Campaign:
    """Starts a Flower app that is installed here and on the devices."""
    started, apps = launch(services, principal), services.settings.flower_apps_dir
    with services.sessions() as session, session.begin():
        campaign = service.create_flower_campaign(session, asked, started, apps=apps)
        record(
            session,
            principal,
            action="campaign.create_flower",
            subject=started.campaign_id,
            at=started.now,
            details=asked.model_dump(mode="json"),
        )
        return campaign


@router.post("/plan")
def plan_campaign(asked: CampaignCreate, services: _Services, principal: _Operator) -> Campaign:
    """What a campaign would ask for and cost in privacy; checked like one, and nothing of it is kept."""
    plan = service.plan_campaign(services.sessions, asked)
    with services.sessions() as session, session.begin() as transaction:
        planned = service.create_campaign(session, plan, launch(services, principal))
        transaction.rollback()
    return _with_refusals(planned, plan, services)


@router.get("")
def list_campaigns(services: _Services, limit: Limit = 100) -> list[Campaign]:
    """The newest campaigns, newest first, without their histories."""
    with services.sessions() as session, session.begin():
        return service.list_campaigns(session, limit=limit)


@router.get("/trace")
def trace_fleet(services: _Services, limit: TraceLimit = 10_000) -> Trace:
    """What devices did for campaigns lately, and when they were there: for simulations to replay."""
    with services.sessions() as session, session.begin():
        return service.trace(session, limit=limit, heartbeat_s=services.settings.heartbeat_s)


@router.get("/{campaign_id}")
def show_campaign(campaign_id: str, services: _Services) -> Campaign:
    """One campaign with every try at every round."""
    with services.sessions() as session, session.begin():
        return service.get_campaign(session, campaign_id)


@router.post("/{campaign_id}/clone", status_code=status.HTTP_201_CREATED)
def clone_campaign(campaign_id: str, changes: CampaignClone, services: _Services, principal: _Operator) -> Campaign:
    """Starts a campaign that asks for the same as another, but for the changes."""
    with reading(services.sessions) as session:
        asked = service.asked_for(session, campaign_id, changes)
    return _create(asked, services, principal, action="campaign.clone", of=campaign_id)


@router.post("/{campaign_id}/pause")
def pause_campaign(campaign_id: str, services: _Services, principal: _Operator) -> Campaign:
    """Stops asking devices; answers that still come are kept, and the round goes on when it is resumed."""
    with services.sessions() as session, session.begin():
        record(session, principal, action="campaign.pause", subject=campaign_id, at=services.now())
        return service.pause_campaign(session, campaign_id)


@router.post("/{campaign_id}/resume")
def resume_campaign(campaign_id: str, services: _Services, principal: _Operator) -> Campaign:
    """Goes on with a paused campaign, in the round it was in."""
    with services.sessions() as session, session.begin():
        record(session, principal, action="campaign.resume", subject=campaign_id, at=services.now())
        return service.resume_campaign(session, campaign_id)


@router.post("/{campaign_id}/cancel")
def cancel_campaign(campaign_id: str, services: _Services, principal: _Operator) -> Campaign:
    """Stops a campaign; what its rounds achieved is kept."""
    now = services.now()
    with services.sessions() as session, session.begin():
        record(session, principal, action="campaign.cancel", subject=campaign_id, at=now)
        return service.cancel_campaign(session, campaign_id, now=now)


def _create(
    asked: CampaignCreate, services: Services, principal: Principal, *, action: str, **details: str
) -> Campaign:
    plan, started = service.plan_campaign(services.sessions, asked), launch(services, principal)
    noted = {**details, **asked.model_dump(mode="json")}
    with services.sessions() as session, session.begin():
        campaign = service.create_campaign(session, plan, started)
        record(session, principal, action=action, subject=started.campaign_id, at=started.now, details=noted)
    return _with_refusals(campaign, plan, services)


def _with_refusals(campaign: Campaign, plan: Plan, services: Services) -> Campaign:
    with reading(services.sessions) as session:
        found = expected_refusals(session, campaign, plan.task, only=plan.asked.devices)
    return campaign.model_copy(update={"would_refuse": found})
