"""Every domain's part of the coordinator: routes, event handlers, controllers. A new domain is named here alone."""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from fastapi import APIRouter
from sqlmodel import Session

import cloud.auth.routes
import cloud.blobs.routes
import cloud.campaigns.accounts.routes
import cloud.campaigns.analytics.routes
import cloud.campaigns.events
import cloud.campaigns.routes
import cloud.devices.events
import cloud.devices.routes
import cloud.governance.routes
import cloud.jobs.routes
import cloud.monitoring.events
import cloud.monitoring.ledgers
import cloud.monitoring.routes
import cloud.registry.routes
import cloud.releases.routes
import cloud.rollouts.events
import cloud.rollouts.routes
import cloud.training.routes
import cloud.work.events
import cloud.work.routes
from cloud.devices.controller import HubAccessController
from cloud.devices.service import tell_hub_again
from cloud.events.consumer import EventConsumer
from cloud.events.handlers import Handler, Handlers
from cloud.jobs.runner import JobRunner
from cloud.monitoring.controller import MonitoringController
from cloud.monitoring.service import note_malformed_event
from cloud.releases.controller import TimestampController
from cloud.rollouts.controller import RolloutController
from cloud.rollouts.service import ask_again
from cloud.services import Services
from shared.hub.port import Event
from shared.messages.events import EventKind

Controller = Callable[[], Coroutine[Any, Any, None]]
"""Runs until it is cancelled."""


def routers() -> Iterable[APIRouter]:
    """Of all domains."""
    return (
        cloud.auth.routes.router,
        cloud.devices.routes.router,
        cloud.work.routes.router,
        cloud.blobs.routes.router,
        cloud.jobs.routes.router,
        cloud.training.routes.router,
        cloud.registry.routes.router,
        cloud.campaigns.routes.router,
        cloud.campaigns.analytics.routes.router,
        cloud.campaigns.accounts.routes.router,
        cloud.releases.routes.router,
        cloud.releases.routes.device_router,
        cloud.rollouts.routes.router,
        cloud.monitoring.routes.router,
        cloud.governance.routes.router,
    )


def event_handlers() -> Handlers:
    """Of all domains, by kind, in this order: what a device is comes before what is concluded from it."""
    return merged(
        cloud.devices.events.HANDLERS,
        cloud.work.events.HANDLERS,
        cloud.campaigns.events.HANDLERS,
        cloud.rollouts.events.HANDLERS,
        cloud.monitoring.events.HANDLERS,
        cloud.monitoring.ledgers.HANDLERS,
    )


def controllers(services: Services) -> Mapping[str, Controller]:
    """What runs beside the routes, by the name that /health shows."""
    return {
        "hub": event_consumer(services).run_forever,
        "devices": HubAccessController(services).run_forever,
        "jobs": JobRunner(services).run_forever,
        "rollouts": RolloutController(services).run_forever,
        "releases": TimestampController(services).run_forever,
        "monitoring": MonitoringController(services).run_forever,
    }


def event_consumer(services: Services) -> EventConsumer:
    """The reader of the hub's events, with all domains' handlers."""
    return EventConsumer(
        services, event_handlers(), on_rejected=raise_malformed_alert, on_started_over=tell_hub_everything
    )


def merged(*parts: Handlers) -> Handlers:
    """The handlers of several domains, by kind, in the order given."""
    together: dict[EventKind, tuple[Handler, ...]] = {}
    for part in parts:
        for kind, handlers in part.items():
            together[kind] = (*together.get(kind, ()), *handlers)
    return together


def raise_malformed_alert(session: Session, event: Event, reason: str, now: float) -> None:
    """Shows the operator a device that sends what no device should."""
    # A log that was started over gives its offsets again.
    cause_id = f"offset-{event.offset}-{event.enqueued_at}"
    note_malformed_event(session, event.device_id, reason=reason, cause_id=cause_id, now=now)


def tell_hub_everything(session: Session) -> None:
    """The hub lost its data: it hears again who may connect, and what running rollouts asked for."""
    tell_hub_again(session)
    ask_again(session)
