"""The table of calls is the coordinator's own: each is one of its routes, with the same shapes."""

import importlib
import inspect
import typing
from types import NoneType

import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, TypeAdapter

from fleet import calls
from fleet.calls import Call
from shared.analytics.query import Query
from shared.api.analytics import AnalysisCreate
from shared.api.campaigns import CampaignClone, CampaignCreate, FlowerCampaignCreate, FlowerRun
from shared.api.enrolment import TokenCreate
from shared.api.jobs import TrainingCreate
from shared.api.releases import ReleaseCreate, SignedTargets
from shared.api.rollouts import RolloutCreate

DOMAINS = (
    "auth",
    "campaigns",
    "campaigns.accounts",
    "campaigns.analytics",
    "devices",
    "jobs",
    "monitoring",
    "registry",
    "releases",
    "rollouts",
    "training",
)
BODIES: tuple[BaseModel, ...] = (
    TokenCreate(),
    TrainingCreate(task="digits"),
    CampaignCreate(task="digits", model_version_id="m"),
    CampaignClone(),
    FlowerCampaignCreate(flower=FlowerRun(app="a/b", version="1", digest="0" * 64)),
    AnalysisCreate(task="digits", query=Query(feature="ink", low=0, high=1)),
    ReleaseCreate(model_version_id="m"),
    SignedTargets(targets_metadata="{}"),
    RolloutCreate(release_id="r"),
)


def every_call() -> list[Call[object]]:
    functions = [
        function
        for name, function in inspect.getmembers(calls, inspect.isfunction)
        if function.__module__ == calls.__name__ and not name.startswith("_") and name != "dataclass"
    ]
    return [function(**_arguments(function)) for function in functions]


def _arguments(function: typing.Callable[..., object]) -> dict[str, object]:
    hints = typing.get_type_hints(function)
    bodies = {type(body): body for body in BODIES}
    needed = [
        name for name, p in inspect.signature(function).parameters.items() if p.default is inspect.Parameter.empty
    ]
    return {name: bodies.get(hints[name], "an-id") for name in needed}


@pytest.fixture(scope="module")
def openapi() -> dict[str, typing.Any]:
    app = FastAPI()
    for domain in DOMAINS:
        router = importlib.import_module(f"cloud.{domain}.routes").router
        assert isinstance(router, APIRouter)
        app.include_router(router)
    return app.openapi()


@pytest.mark.parametrize("call", every_call(), ids=lambda call: f"{call.method} {call.route}")
def test_every_call_is_a_route_of_the_coordinator(call: Call[object], openapi: dict[str, typing.Any]) -> None:
    operation = openapi["paths"][call.route][call.method.lower()]
    asked = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"}
    assert set(call.query) <= asked
    if call.body is not None:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert schema["$ref"].endswith(f"/{type(call.body).__name__}")
    assert _shape_name(operation) == _expected_name(call)


def _shape_name(operation: dict[str, typing.Any]) -> str:
    answer = next(answer for code, answer in operation["responses"].items() if code.startswith("2"))
    schema = answer.get("content", {}).get("application/json", {}).get("schema")
    if not schema:
        return "nothing"
    reference = schema["items"]["$ref"] if schema.get("type") == "array" else schema["$ref"]
    name = str(reference).rsplit("/", 1)[-1]
    return f"list of {name}" if schema.get("type") == "array" else name


def _expected_name(call: Call[object]) -> str:
    if call.answer is NoneType:
        return "nothing"
    schema = TypeAdapter(call.answer).json_schema()
    return f"list of {schema['items']['$ref'].rsplit('/', 1)[-1]}" if schema.get("type") == "array" else schema["title"]
