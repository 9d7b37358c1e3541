"""The service API's answers to what it should not be asked, and the commands around it."""

import json
import re
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest

from cloud.localhub.__main__ import main
from cloud.localhub.policies import Right, load_or_create_policies
from cloud.localhub.rest.application import ROUTES
from cloud.localhub.rest.routes import Route
from tests.cloud.localhub.service import Service
from tests.cloud.localhub.support import REPOSITORY, HubProcess, hub_process

_ADDRESS = "127.0.0.19"

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub"), _ADDRESS) as running:
        service = Service(running)
        assert service.call("PUT", "/devices/press-07", {"authentication": {"type": "certificateAuthority"}})[0] == 200
        yield running


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "name"),
    [
        ("GET", "/devices/nobody", None, 404, "DeviceNotFound"),
        ("GET", "/elsewhere", None, 404, "NotFound"),
        ("POST", "/devices/press-07", {}, 405, "MethodNotAllowed"),
        ("DELETE", "/devices/press-07", None, 412, "PreconditionFailed"),
        ("PUT", "/devices/press-07", {}, 409, "DeviceAlreadyExists"),
        ("PUT", "/devices/a%20b", {}, 400, "ArgumentInvalid"),
        ("PUT", "/devices/new", {"deviceId": "other"}, 400, "ArgumentInvalid"),
        ("PUT", "/devices/new", {"status": "maybe"}, 400, "ArgumentInvalid"),
        ("PUT", "/devices/new", {"authentication": {"type": "magic"}}, 400, "ArgumentInvalid"),
        ("PUT", "/devices/new", {"authentication": {"symmetricKey": {"primaryKey": "short"}}}, 400, "ArgumentInvalid"),
        ("PUT", "/devices/new", [1], 400, "ArgumentInvalid"),
        ("PATCH", "/twins/press-07", {"tags": 3}, 400, "ArgumentInvalid"),
        ("PATCH", "/twins/press-07", {"properties": {"desired": {"a.b": 1}}}, 400, "ArgumentInvalid"),
        ("PATCH", "/twins/press-07", {"tags": {"a": "x" * 4000, "b": "x" * 4000, "c": "x" * 1000}}, 413, "MessageToo"),
        ("PATCH", "/twins/press-07", {"tags": {"a": "x" * 600_000}}, 413, "MessageTooLarge"),
        ("POST", "/twins/press-07/methods", {"methodName": ""}, 400, "ArgumentInvalid"),
        ("POST", "/devices/query", {"query": 3}, 400, "ArgumentInvalid"),
        ("GET", "/events?after=-1", None, 400, "ArgumentInvalid"),
        ("GET", "/events?limit=100000", None, 400, "ArgumentInvalid"),
        ("GET", "/events?waitSeconds=nan", None, 400, "ArgumentInvalid"),
    ],
)
def test_a_bad_request_gets_iot_hubs_status_and_body(
    hub: HubProcess, method: str, path: str, body: object, status: int, name: str
) -> None:
    answered, error = Service(hub).call(method, path, body)
    assert answered == status
    assert error["Message"].startswith(f"ErrorCode:{name}")
    assert error["ExceptionMessage"].startswith("Tracking ID:")


def test_no_token_an_expired_one_and_one_for_another_host_are_unauthorized(hub: HubProcess) -> None:
    nothing, expired, elsewhere = Service(hub), Service(hub, lives_s=-10), Service(hub)
    nothing.token = "SharedAccessSignature nonsense"
    elsewhere.token = elsewhere.token.replace("127.0.0.19", "127.0.0.99")
    for caller in (nothing, expired, elsewhere):
        status, error = caller.call("GET", "/devices/press-07")
        assert (status, error["Message"].split(";")[0]) == (401, "ErrorCode:IotHubUnauthorizedAccess")


_SERVICE_ROUTES = [each for each in ROUTES if each.right is not Right.DEVICE_CONNECT]


@pytest.mark.parametrize("asked", _SERVICE_ROUTES, ids=lambda each: f"{each.method} {each.template}")
def test_no_route_answers_a_policy_without_its_right(hub: HubProcess, asked: Route) -> None:
    policies = load_or_create_policies(hub.data_dir)
    needed = set(Right) if asked.is_for_owner else {asked.right}
    lacking = [name for name, policy in policies.items() if needed - policy.rights]
    assert len(lacking) in (2, 3, 4)
    for name in lacking:
        status, error = Service(hub, name).call(asked.method, re.sub(r"\{\w+\}", "x", asked.template), {})
        assert (status, error["Message"].split(";")[0]) == (401, "ErrorCode:IotHubUnauthorizedAccess"), name


def test_health_needs_no_token(hub: HubProcess) -> None:
    tls = ssl.create_default_context(cafile=str(hub.authority.ca_file))
    with urllib.request.urlopen(f"https://{hub.service}/health", timeout=10, context=tls) as response:
        assert json.loads(response.read()) == {"status": "ok", "connections": 0}


def test_a_token_by_either_key_and_an_etag_guard_a_device(hub: HubProcess) -> None:
    service = Service(hub)
    _, device = service.call("PUT", "/devices/press-08", {})
    assert len(device["authentication"]["symmetricKey"]["primaryKey"]) == 44
    assert service.call("PUT", "/devices/press-08", {"status": "disabled"}, etag='"999"')[0] == 412
    _, changed = service.call("PUT", "/devices/press-08", {"status": "disabled"}, etag=f'"{device["etag"]}"')
    assert changed["status"] == "disabled"
    assert service.call("PUT", "/devices/press-99", {}, etag="*")[0] == 404
    assert service.call("GET", "/statistics/devices")[1]["disabledDeviceCount"] == 1
    assert service.call("DELETE", "/devices/press-08", etag="*") == (204, None)


def test_the_command_prints_a_connection_string_and_says_what_is_wrong(
    hub: HubProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["connection-string", "--data", str(hub.data_dir), "--hostname", hub.service]) == 0
    assert capsys.readouterr().out.strip() == hub.connection_string()
    assert main(["connection-string", "--data", str(hub.data_dir), "--policy", "root"]) == 1
    assert "Expected a policy of" in capsys.readouterr().err
    assert main(["connection-string"]) == 2


@pytest.mark.parametrize(
    ("certificate", "says"), [("missing.pem", "Expected a certificate, its key"), ("", "Expected free ports")]
)
def test_a_hub_that_cannot_start_says_why_in_one_line(hub: HubProcess, certificate: str, says: str) -> None:
    files = [
        "--certificate",
        certificate or str(hub.credential.certificate_file),
        "--key",
        str(hub.credential.key_file),
    ]
    files += ["--client-ca", str(hub.authority.ca_file), "--data", str(hub.data_dir.with_name("second"))]
    command = [sys.executable, "-m", "cloud.localhub", "serve", "--address", _ADDRESS, *files]
    ended = subprocess.run(command, capture_output=True, timeout=30, cwd=REPOSITORY, check=False)
    assert ended.returncode == 1
    assert says in ended.stderr.decode()
    assert "Traceback" not in ended.stderr.decode()
