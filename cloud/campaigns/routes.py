"""Campaigns over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, status

from cloud.auth.operators import Principal, require_operator
from cloud.campaigns import service
from cloud.dependencies import Limit, services
from cloud.services import Services
from shared.api.campaigns import Campaign, CampaignCreate

router = APIRouter(prefix="/v1/campaigns", tags=["campaigns"], dependencies=[Depends(require_operator)])
_Services = Annotated[Services, Depends(services)]


@router.post("", status_code=status.HTTP_201_CREATED)
def create_campaign(
    asked: CampaignCreate, services: _Services, principal: Annotated[Principal, Depends(require_operator)]
) -> Campaign:
    """Starts federated rounds over the fleet, from a model version."""
    with services.sessions() as session, session.begin():
        return service.create_campaign(
            session,
            asked,
            campaign_id=services.new_id(),
            job_id=services.new_id(),
            heartbeat_s=services.settings.heartbeat_s,
            now=services.now(),
            principal=principal,
        )


@router.get("")
def list_campaigns(services: _Services, limit: Limit = 100) -> list[Campaign]:
    """The newest campaigns, newest first, without their histories."""
    with services.sessions() as session, session.begin():
        return service.list_campaigns(session, limit=limit)


@router.get("/{campaign_id}")
def show_campaign(campaign_id: str, services: _Services) -> Campaign:
    """One campaign with every try at every round."""
    with services.sessions() as session, session.begin():
        return service.get_campaign(session, campaign_id)


@router.post("/{campaign_id}/cancel")
def cancel_campaign(campaign_id: str, services: _Services) -> Campaign:
    """Stops a campaign; what its rounds achieved is kept."""
    with services.sessions() as session, session.begin():
        return service.cancel_campaign(session, campaign_id, now=services.now())
