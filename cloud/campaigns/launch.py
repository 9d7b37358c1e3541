"""The circumstances under which a campaign or an analysis starts."""

from dataclasses import dataclass
from typing import Any

from cloud.auth.operators import Principal
from cloud.services import Services


@dataclass(frozen=True)
class Launch:
    """Fresh ids, who asks, and when.

    Args:
        campaign_id: Of the campaign or analysis.
        job_id: Of its job.
        heartbeat_s: How often devices are heard when they are well.
        now: Seconds since the epoch.
        principal: Who asks.
    """

    campaign_id: str
    job_id: str
    heartbeat_s: float
    now: float
    principal: Principal

    def columns(self) -> dict[str, Any]:
        """Its part of a `CampaignRow`. `Any`: keywords of a constructor."""
        return {
            "campaign_id": self.campaign_id,
            "job_id": self.job_id,
            "heartbeat_s": self.heartbeat_s,
            "created_at": self.now,
            "created_by_principal": self.principal.name,
            "created_by_role": self.principal.role,
        }


def launch(services: Services, principal: Principal) -> Launch:
    """One that happens here and now."""
    heartbeat_s = services.settings.heartbeat_s
    return Launch(services.new_id(), services.new_id(), heartbeat_s, services.now(), principal)
