from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import Session, SQLModel

from cloud.db import SessionFactory, open_engine, session_factory
from cloud.registry.errors import UnknownModelVersionError, VersionStageError
from cloud.registry.models import ModelVersionRow
from cloud.registry.service import (
    NewVersion,
    approve_candidate,
    change_stage,
    find_by_origin,
    get_version,
    list_versions,
    register,
)
from cloud.registry.stages import STAGE_TRANSITIONS, StageEvent
from shared.ids import Digest
from shared.lifecycles import VersionStage
from shared.messages.base import ObjectRef

WEIGHTS = ObjectRef(digest=Digest("a" * 64), size_bytes=10)


def _new(origin: str = "training:1") -> NewVersion:
    return NewVersion(
        origin, "digits", "1", WEIGHTS, metrics={"validation_accuracy": 0.9}, lineage={"seed": 0, "rounds": [1, 2]}
    )


@pytest.fixture
def sessions(tmp_path: Path, database_url: str) -> Iterator[SessionFactory]:
    engine = open_engine(database_url or f"sqlite:///{tmp_path}/registry.sqlite")
    SQLModel.metadata.create_all(engine)
    yield session_factory(engine)
    engine.dispose()


def _register(session: Session, name: str, *, origin: str, now: float) -> None:
    register(session, _new(origin), model_version_id=name, now=now)


def test_what_was_registered_is_found_again(sessions: SessionFactory) -> None:
    with sessions() as session, session.begin():
        registered = register(session, _new(), model_version_id="v1", now=5.0)

    with sessions() as session, session.begin():
        found = get_version(session, "v1")
        assert find_by_origin(session, "training:1") == found
    assert found == registered
    assert (found.stage, found.weights, found.created_at) == (VersionStage.CANDIDATE, WEIGHTS, 5.0)
    assert found.lineage == {"seed": 0, "rounds": [1, 2]}


def test_one_origin_makes_one_version_however_often_it_is_run(sessions: SessionFactory) -> None:
    for name, now in (("v1", 5.0), ("v2", 6.0)):
        with sessions() as session, session.begin():
            registered = register(session, _new(), model_version_id=name, now=now)

    assert registered.model_version_id == "v1"
    with sessions() as session, session.begin():
        assert len(list_versions(session, limit=10)) == 1


def test_lists_the_newest_first_and_no_more_than_asked(sessions: SessionFactory) -> None:
    with sessions() as session, session.begin():
        for number in range(5):
            _register(session, f"v{number}", origin=f"training:{number}", now=float(number))

    with sessions() as session, session.begin():
        assert [version.model_version_id for version in list_versions(session, limit=2)] == ["v4", "v3"]


def test_an_unknown_version_is_said_so(sessions: SessionFactory) -> None:
    with sessions() as session, session.begin(), pytest.raises(UnknownModelVersionError, match="'v9'"):
        get_version(session, "v9")


@pytest.mark.parametrize("stage", list(VersionStage))
@pytest.mark.parametrize("event", list(StageEvent))
def test_stages_follow_the_table_and_nothing_else(
    sessions: SessionFactory, stage: VersionStage, event: StageEvent
) -> None:
    with sessions() as session, session.begin():
        _register(session, "v1", origin="training:1", now=1.0)
        session.get_one(ModelVersionRow, "v1").stage = stage.value

    expected = STAGE_TRANSITIONS.get((stage, event))
    with sessions() as session, session.begin():
        if expected is not None:
            assert change_stage(session, "v1", event).stage is expected
        else:
            with pytest.raises(VersionStageError):
                change_stage(session, "v1", event)


def test_publishing_approves_a_candidate_and_revives_nothing_retired(sessions: SessionFactory) -> None:
    with sessions() as session, session.begin():
        _register(session, "v1", origin="training:1", now=1.0)
        _register(session, "v2", origin="training:2", now=2.0)
        change_stage(session, "v2", StageEvent.RETIRE)
        for name in ("v1", "v1", "v2", "unknown"):
            approve_candidate(session, name)
        stages = {version.model_version_id: version.stage for version in list_versions(session, limit=10)}
    assert stages == {"v1": VersionStage.APPROVED, "v2": VersionStage.RETIRED}
