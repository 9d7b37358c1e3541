"""What was ever on the wire still parses, and is said again with nothing lost or changed.

The files are never edited: agents and releases in the field speak them. A new field gets a new file beside the old
ones; a change that breaks an old file needs a new protocol version, and its own folder.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.api.enrolment import EnrolmentToken
from shared.manifests import Manifest
from shared.messages.base import Message
from shared.messages.desired import DesiredDocument, ReportedDocument
from shared.messages.events import Envelope, EventKind, Heartbeat, ReleaseStatus, ServingReport, WorkResult
from shared.messages.work import WorkList
from shared.sketches import DriftProfile

HERE = Path(__file__).parent
DOCUMENTS: dict[str, type[Message]] = {
    "messages/v1/desired.json": DesiredDocument,
    "messages/v1/reported.json": ReportedDocument,
    "messages/v1/work.json": WorkList,
    "messages/v1/work_flower.json": WorkList,
    "manifests/v1/manifest.json": Manifest,
    "manifests/v1/profile.json": DriftProfile,
}
BODIES: dict[EventKind, type[Message]] = {
    EventKind.HEARTBEAT: Heartbeat,
    EventKind.RELEASE_STATUS: ReleaseStatus,
    EventKind.WORK_RESULT: WorkResult,
    EventKind.SERVING_REPORT: ServingReport,
}


def events() -> Iterator[Path]:
    for path in sorted((HERE / "messages").glob("v*/*.json")):
        if str(path.relative_to(HERE)) not in DOCUMENTS:
            yield path


def assert_survives(model: type[Message], document: object) -> None:
    """The document parses, and every field it has is said again, unchanged; what it leaves out may get a default."""
    message = model.parse(json.dumps(document))
    assert json.loads(message.model_dump_json(exclude_unset=True)) == document
    assert_within(document, json.loads(message.encode()))


def assert_within(part: Any, whole: Any) -> None:  # Any: JSON
    if isinstance(part, dict):
        for key, value in part.items():
            assert_within(value, whole[key])
    elif isinstance(part, list):
        assert len(part) == len(whole)
        for one, other in zip(part, whole, strict=True):
            assert_within(one, other)
    else:
        assert part == whole


@pytest.mark.parametrize("name", DOCUMENTS)
def test_an_old_document_survives(name: str) -> None:
    assert_survives(DOCUMENTS[name], json.loads((HERE / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", events(), ids=lambda path: path.stem)
def test_an_old_event_and_its_body_survive(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    assert_survives(Envelope, document)
    assert_survives(BODIES[EventKind(document["kind"])], document["body"])


def test_every_kind_of_event_has_a_golden_file() -> None:
    kinds = {json.loads(path.read_text(encoding="utf-8"))["kind"] for path in events()}
    assert kinds == set(EventKind) == set(BODIES)


def test_an_old_enrolment_token_is_read_and_written_as_it_was() -> None:
    text = (HERE / "tokens" / "v1" / "token.txt").read_text(encoding="utf-8").strip()
    expected = json.loads((HERE / "tokens" / "v1" / "token.json").read_text(encoding="utf-8"))
    token = EnrolmentToken.decode(text)
    assert token.model_dump() == expected
    assert token.encode() == text
