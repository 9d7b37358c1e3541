"""The unmodified azure-iot-hub in tests: its managers for a hub, and the status a call fails with. It has no types."""

from typing import Any

import pytest

from tests.cloud.localhub.support import HubProcess

MARKS = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
    # requests leaves its sessions to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Azure:
    """A caller with one policy's connection string; `environment` names the CA to requests for the test's time."""

    def __init__(self, hub: HubProcess, environment: pytest.MonkeyPatch, *, policy: str = "iothubowner") -> None:
        import azure.iot.hub as sdk

        environment.setenv("REQUESTS_CA_BUNDLE", str(hub.authority.ca_file))
        environment.setenv("NO_PROXY", hub.address)
        told = hub.connection_string(policy)
        self.registry: Any = sdk.IoTHubRegistryManager.from_connection_string(told)
        self.configurations: Any = sdk.IoTHubConfigurationManager.from_connection_string(told)
        self.jobs: Any = sdk.IoTHubJobManager.from_connection_string(told)
        self.digital_twins: Any = sdk.DigitalTwinClient.from_connection_string(told)
        self.runtime: Any = sdk.IoTHubHttpRuntimeManager.from_connection_string(told)

    def query(self, text: str) -> list[dict[str, Any]]:
        """All rows as JSON: the SDK reads every row as a twin and drops the columns that twins do not have."""
        from azure.iot.hub.models import QuerySpecification

        specification = QuerySpecification(query=text)
        rows: list[dict[str, Any]] = []
        token = None
        while True:
            raw = self.registry.protocol.query.get_twins(specification, token, "100", None, True)
            rows += raw.response.json()
            token = raw.headers["x-ms-continuation"]
            if token is None:
                return rows


def failure(call: Any, *arguments: object) -> tuple[int, str]:
    """The status and IoT Hub's name of the error that a call fails with."""
    from msrest.exceptions import HttpOperationError

    with pytest.raises(HttpOperationError) as raised:
        call(*arguments)
    response = raised.value.response
    return int(response.status_code), str(response.json()["Message"]).partition(";")[0].removeprefix("ErrorCode:")
