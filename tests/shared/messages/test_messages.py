"""Laws of the wire: what is said is what is heard, and what is no message is refused in one way."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.lifecycles import ReleaseState
from shared.manifests import Manifest, TensorSchema
from shared.messages.base import MalformedMessageError, Message, ObjectRef
from shared.messages.desired import DesiredDocument, DesiredRelease, ReportedDocument, ReportedRelease
from shared.messages.events import (
    NUMBER_MAX,
    Envelope,
    FeatureDrift,
    Heartbeat,
    ReleaseStatus,
    ServingReport,
    WorkResult,
    WorkStatus,
)
from shared.messages.work import Work, WorkKind, WorkList
from shared.privacy import PrivacySpec, PrivacySpent
from shared.sketches import DriftProfile, FeatureProfile

texts = st.text(max_size=20)
ids = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=64)
counts = st.integers(0, NUMBER_MAX)
numbers = st.floats(allow_nan=False, allow_infinity=False)
sizes = st.floats(0, 1e9)
positives = st.floats(1e-9, 1e9)
shares = st.floats(1e-9, 1 - 1e-9)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
names = st.dictionaries(texts, texts, max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-NUMBER_MAX, NUMBER_MAX) | numbers | texts,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)

refs = st.builds(ObjectRef, digest=digests, size_bytes=counts)
spent = st.builds(PrivacySpent, epsilon=sizes, delta=shares, epsilon_limit=positives, dataset_id=texts, unit=texts)
specs = st.builds(
    PrivacySpec,
    epsilon=positives,
    delta=shares,
    noise_multiplier=positives,
    max_grad_norm=positives,
    sampling_rate=shares,
    steps_per_round=st.integers(1, 1000),
    rounds=st.integers(1, 1000),
)
work = st.builds(
    Work,
    work_id=ids,
    kind=st.sampled_from(WorkKind),
    campaign_id=texts,
    round=counts,
    task=texts,
    task_version=texts,
    model=refs,
    config=st.dictionaries(texts, st.booleans() | st.integers(-NUMBER_MAX, NUMBER_MAX) | numbers | texts, max_size=4),
    privacy=st.none() | specs,
    deadline_s=positives,
)
drift = st.builds(FeatureDrift, feature=texts, psi=sizes, threshold=positives)
tensor_schemas = st.builds(TensorSchema, name=texts, datatype=texts, shape=st.lists(st.integers(-1, 9), max_size=3))
profiles = st.lists(numbers, max_size=3).flatmap(
    lambda edges: st.builds(
        FeatureProfile,
        feature=texts,
        edges=st.just(sorted(edges)),
        proportions=st.lists(numbers, min_size=len(edges) + 1, max_size=len(edges) + 1),
        threshold=positives,
    )
)
messages: st.SearchStrategy[Message] = st.one_of(
    refs,
    st.builds(
        Envelope,
        kind=texts,
        id=ids,
        device_id=texts,
        boot_id=ids,
        sequence=counts,
        body=json_objects,
    ),
    st.builds(
        Heartbeat,
        agent_version=texts,
        tasks=names,
        runtime=texts,
        opset_max=counts,
        memory_rss_bytes=counts,
        uptime_s=sizes,
        serving_url=texts,
        events_rejected=counts,
        privacy=st.lists(spent, max_size=2),
    ),
    st.builds(
        ReleaseStatus,
        release_id=ids,
        generation=counts,
        state=st.sampled_from(ReleaseState),
        error=texts,
        active_release_id=st.none() | ids,
        self_test_ms=st.none() | sizes,
    ),
    st.builds(
        WorkResult,
        work_id=ids,
        status=st.sampled_from(WorkStatus),
        reason=texts,
        update=st.none() | refs,
        metrics=st.dictionaries(texts, numbers, max_size=3),
        privacy=st.none() | spent,
        duration_s=sizes,
    ),
    st.builds(
        ServingReport,
        release_id=ids,
        window_s=positives,
        requests=counts,
        examples=counts,
        errors=counts,
        latency_p50_ms=st.none() | sizes,
        latency_p99_ms=st.none() | sizes,
        predictions=st.dictionaries(texts, counts, max_size=3),
        drift=st.lists(drift, max_size=2),
        drift_examples=counts,
    ),
    st.builds(
        DesiredDocument,
        release=st.none()
        | st.builds(DesiredRelease, generation=st.integers(1, NUMBER_MAX), release_id=ids, rollout_id=texts),
    ),
    st.builds(
        ReportedDocument,
        release=st.none()
        | st.builds(
            ReportedRelease,
            generation=counts,
            release_id=st.none() | ids,
            state=st.sampled_from(ReleaseState),
            error=texts,
            active_release_id=st.none() | ids,
        ),
    ),
    st.builds(WorkList, work=st.lists(work, max_size=2)),
    st.builds(
        Manifest,
        release_id=ids,
        task=texts,
        task_version=texts,
        opset=counts,
        ir_version=counts,
        inputs=st.lists(tensor_schemas, max_size=2),
        outputs=st.lists(tensor_schemas, max_size=2),
        classes=st.lists(texts, max_size=3),
        files=st.dictionaries(texts, refs, max_size=3),
        self_test_tolerance=positives,
        metrics=st.dictionaries(texts, numbers, max_size=3),
        lineage=json_objects,
        created_at=numbers,
    ),
    st.builds(
        DriftProfile,
        features=st.lists(profiles, max_size=2),
        examples_min=st.integers(1, 1000),
        reference_examples=st.integers(1, 1000),
    ),
)


@given(messages)
def test_what_is_said_is_what_is_heard(message: Message) -> None:
    assert type(message).parse(message.encode()) == message


@given(messages, st.dictionaries(st.from_regex(r"x-[a-z]{1,8}", fullmatch=True), json_values, min_size=1, max_size=2))
def test_fields_of_a_newer_program_are_kept(message: Message, newer: dict[str, Any]) -> None:
    document = {**message.model_dump(mode="json"), **newer}
    heard = type(message).parse_document(document)
    assert type(message).parse(heard.encode()).model_dump(mode="json") == document


@given(st.binary(max_size=60))
def test_bytes_that_are_no_event_are_refused_in_one_way(junk: bytes) -> None:
    with pytest.raises(MalformedMessageError, match=r"^Expected a Envelope: "):
        Envelope.parse(junk)


@given(json_values)
def test_json_that_is_no_event_is_refused_in_one_way(junk: object) -> None:
    with pytest.raises(MalformedMessageError, match=r"^Expected a Envelope: "):
        Envelope.parse_document(junk)


def test_what_is_nested_too_deeply_is_refused_in_the_same_way() -> None:
    deep = b'{"a":' * 100_000
    with pytest.raises(MalformedMessageError):
        Envelope.parse(deep)
