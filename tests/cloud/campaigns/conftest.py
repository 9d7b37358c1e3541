from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.campaigns.flower.runtime import prepare_flower
from tests.cloud.campaigns.world import World

# Flower is loaded here, with its own warnings switched off, before any test module imports it.
prepare_flower("tests")


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    world = World(tmp_path, database_url)
    yield world
    world.engine.dispose()
