from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.coordinator import Machine, TestCoordinator, enrol, machine, open_coordinator
from tests.support.databases import database_url, empty_database, postgresql_server, postgresql_url
from tests.support.http import AppClient

__all__ = ["database_url", "empty_database", "postgresql_server", "postgresql_url"]


@pytest.fixture
def coordinator(tmp_path: Path, database_url: str) -> Iterator[TestCoordinator]:
    """On each database; a module that needs other settings has one of its own."""
    coordinator = open_coordinator(tmp_path, database_url=database_url)
    yield coordinator
    coordinator.engine.dispose()


@pytest.fixture
def client(coordinator: TestCoordinator) -> Iterator[AppClient]:
    """HTTP to the coordinator."""
    with coordinator.client() as client:
        yield client


@pytest.fixture
def device(client: AppClient, coordinator: TestCoordinator) -> Machine:
    """An enrolled device, with its key."""
    device = machine()
    enrol(client, coordinator, device)
    return device
