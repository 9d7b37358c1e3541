"""An HTTP application that tells one scenario by the coordinator's rules: bearer token, shapes, Problem, 404.

It stands where a real coordinator cannot be brought into a state quickly: a rollout halfway, a device that fails. That
its routes are the real ones is held by tests/fleet/test_calls.py.
"""

import asyncio
from collections.abc import Callable, Sequence

import httpx
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.api.base import Problem
from shared.api.campaigns import FlowerCampaignCreate
from shared.api.enrolment import TokenCreate, TokenCreated
from shared.api.rollouts import RolloutCreate
from shared.lifecycles import ROLLOUT_TRANSITIONS, RolloutEvent
from tests.fleet import scenario

TOKEN = "operator-token-of-a-test"
TOKEN_TEXT = "fle1.c2VjcmV0"
Handler = Callable[[Request], object]


class ToldFleet:
    """The scenario's state; requests change it, tests look at it and may switch it off."""

    def __init__(self) -> None:
        self.devices = scenario.devices()
        self.campaigns = [scenario.campaign()]
        self.rollouts = [scenario.rollout()]
        self.alerts = scenario.alerts()
        self.releases = scenario.releases()
        self.models = scenario.models()
        self.jobs = scenario.jobs()
        self.requests: list[str] = []
        self.is_away = False
        self.app = Starlette(routes=self._routes())

    def transport(self) -> httpx.BaseTransport:
        return _BlockingTransport(self)

    def async_transport(self) -> httpx.AsyncBaseTransport:
        return _Transport(self)

    def _routes(self) -> list[Route]:
        def item(name: str, values: Callable[[], Sequence[BaseModel]], key: str) -> list[Route]:
            return [
                _route(f"/v1/{name}", lambda _: list(values())),
                _route(f"/v1/{name}/{{key}}", lambda r: _find(values(), key, r.path_params["key"])),
            ]

        return [
            *item("devices", lambda: self.devices, "device_id"),
            *item("campaigns", lambda: self.campaigns, "campaign_id"),
            *item("rollouts", lambda: self.rollouts, "rollout_id"),
            *item("releases", lambda: self.releases, "release_id"),
            *item("models", lambda: self.models, "model_version_id"),
            *item("jobs", lambda: self.jobs, "job_id"),
            *item("alerts", lambda: self.alerts, "alert_id"),
            _route("/v1/serving-windows", lambda r: scenario.serving_windows(r.query_params["device_id"])),
            _route("/v1/privacy", lambda r: scenario.accounts(r.query_params.get("device_id"))),
            _route("/v1/tokens", _create_token, "POST"),
            _route("/v1/campaigns/flower", _run_flower_app, "POST"),
            _route("/v1/rollouts", self._plan, "POST"),
            _route("/v1/rollouts/{key}/{event}", self._steer, "POST"),
            _route("/v1/alerts/{key}/close", self._close, "POST"),
        ]

    def _plan(self, request: Request) -> object:
        asked = RolloutCreate.model_validate_json(request.state.body)
        planned = scenario.planned_rollout().model_copy(
            update={"rollout_id": scenario.ROLLOUT[:-1] + "e", "release_id": asked.release_id, "soak_s": asked.soak_s}
        )
        self.rollouts.insert(0, planned)
        return planned

    def _steer(self, request: Request) -> object:
        found = next(rollout for rollout in self.rollouts if rollout.rollout_id == request.path_params["key"])
        event = RolloutEvent(request.path_params["event"])
        state = ROLLOUT_TRANSITIONS.get((found.state, event))
        if state is None:
            return _problem(409, "illegal_transition", f"Expected another state, got {event.value}")
        changed = found.model_copy(update={"state": state})
        self.rollouts = [changed if rollout is found else rollout for rollout in self.rollouts]
        return changed

    def _close(self, request: Request) -> object:
        found = next(alert for alert in self.alerts if alert.alert_id == request.path_params["key"])
        closed = found.model_copy(update={"closed_at": scenario.NOW})
        self.alerts = [closed if alert is found else alert for alert in self.alerts]
        return closed


def _create_token(request: Request) -> object:
    asked = TokenCreate.model_validate_json(request.state.body)
    return TokenCreated(token_id="t-1", token=TOKEN_TEXT, expires_at=scenario.NOW + asked.expires_in_s)


def _run_flower_app(request: Request) -> object:
    return scenario.flower_campaign(FlowerCampaignCreate.model_validate_json(request.state.body))


def _route(path: str, handler: Handler, method: str = "GET") -> Route:
    async def endpoint(request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return _problem(401, "invalid_operator_token", "Expected a known operator token, got another one")
        request.state.body = await request.body()
        answer = handler(request)
        if isinstance(answer, Response):
            return answer
        if isinstance(answer, BaseModel):
            return JSONResponse(answer.model_dump(mode="json"))
        assert isinstance(answer, list)
        return JSONResponse([value.model_dump(mode="json") for value in answer])

    return Route(path, endpoint, methods=[method])


def _find(values: Sequence[BaseModel], key: str, wanted: str) -> BaseModel | Response:
    found = next((value for value in values if getattr(value, key) == wanted), None)
    return found or _problem(404, "not_found", f"Expected a known {key}, got {wanted!r}")


def _problem(status: int, code: str, message: str) -> Response:
    return JSONResponse(Problem(code=code, message=message, hint="Look at the list.").model_dump(), status_code=status)


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, told: ToldFleet) -> None:
        self._told = told
        self._inner = httpx.ASGITransport(told.app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._told.requests.append(f"{request.method} {request.url.path}")
        if self._told.is_away:
            raise httpx.ConnectError("Connection refused", request=request)
        return await self._inner.handle_async_request(request)


class _BlockingTransport(httpx.BaseTransport):
    def __init__(self, told: ToldFleet) -> None:
        self._inner = _Transport(told)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def exchange() -> httpx.Response:
            answer = await self._inner.handle_async_request(request)
            return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

        return asyncio.run(exchange())
