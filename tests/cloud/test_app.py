"""Who is let in, and how errors are said."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from cloud.app import create_app
from cloud.domains import routers
from tests.support.coordinator import TestCoordinator, open_coordinator
from tests.support.http import AppClient

WITHOUT_SIGNATURE = {"/v1/ca", "/v1/enrol", "/v1/nonce"}


@pytest.fixture
def coordinator(tmp_path: Path) -> TestCoordinator:
    return open_coordinator(tmp_path)


def test_every_route_but_three_refuses_callers_without_proof(client: AppClient) -> None:
    routes = [route for router in routers() for route in router.routes if isinstance(route, APIRoute)]
    assert len(routes) > 30
    for route in routes:
        if route.path not in WITHOUT_SIGNATURE:
            for method in route.methods or ():
                answer = client.request(method, route.path.replace("{", "").replace("}", ""), json={})
                assert answer.status_code == 401, (method, route.path)


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer ", "Basic eDp5", "Bearer \x7f", "Device x"])
def test_a_wrong_operator_token_is_refused_and_not_repeated(client: AppClient, header: str) -> None:
    answer = client.get("/v1/devices", headers={"Authorization": header})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_operator_token")
    assert "wrong" not in answer.text


def test_errors_have_one_shape(client: AppClient, coordinator: TestCoordinator) -> None:
    answers = [
        (client.get("/nowhere"), 404, "no_such_route"),
        (client.delete("/health"), 405, "no_such_method"),
        (client.get("/v1/devices/none", headers=coordinator.operator), 404, "unknown_device"),
        (client.get("/v1/devices?limit=0", headers=coordinator.operator), 422, "invalid_request"),
        (client.delete("/v1/devices/NO", headers=coordinator.operator), 422, "invalid_id"),
    ]
    for answer, status, code in answers:
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert set(answer.json()) == {"code", "message", "hint"}


def test_health_and_the_page_of_documentation_need_no_token(client: AppClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "components": {"database": "ok"}}
    page = client.get("/docs")
    assert page.status_code == 200
    assert "https://" not in page.text, "a factory without the internet sees the page too"
    assert "/v1/rollouts" in client.get("/openapi.json").json()["paths"]


def test_a_device_that_hangs_up_in_its_upload_is_no_mistake_of_ours(coordinator: TestCoordinator) -> None:
    app = create_app(coordinator.services, routers())
    path = "/v1/device/uploads/" + "0" * 64
    scope = {
        "type": "http",
        "method": "PATCH",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"authorization", b"Device x"), (b"upload-offset", b"0"), (b"upload-length", b"9")],
    }
    messages = iter([{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}])
    answers: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        answers.append(message)

    asyncio.run(app(scope, receive, send))
    assert answers[0]["status"] == 400
    assert b"client_disconnected" in answers[1]["body"]
