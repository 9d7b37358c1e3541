"""Laws of twins and signatures."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.localhub import sas, twins
from cloud.localhub.errors import RefusedError, ServiceError
from shared.hub import documents
from tests.cloud.localhub.tokens import make_sas

_keys = st.text("abc", min_size=1, max_size=2)
_scalars = st.booleans() | st.integers(-(2**52), 2**52) | st.floats(-1e6, 1e6) | st.text(max_size=5)
_objects: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(_keys, _scalars, max_size=3),
    lambda below: st.dictionaries(_keys, _scalars | below, max_size=3),
    max_leaves=8,
)
_patches: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(_keys, st.none() | _scalars, max_size=3),
    lambda below: st.dictionaries(_keys, st.none() | _scalars | below, max_size=3),
    max_leaves=8,
)


@given(_objects, _patches)
def test_applying_a_patch_twice_changes_nothing_more(document: dict[str, Any], patch: dict[str, Any]) -> None:
    once = twins.merge(document, patch)
    assert twins.merge(once, patch) == once


@given(_objects, _patches)
def test_the_hub_and_the_port_merge_alike(document: dict[str, Any], patch: dict[str, Any]) -> None:
    assert twins.merge(document, patch) == documents.merge(document, patch)


@given(_objects, _objects)
def test_the_difference_leads_from_the_old_document_to_the_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert twins.merge(old, twins.difference(old, new)) == new


@given(_objects, _patches)
def test_metadata_has_a_stamp_for_every_property_and_no_other(document: dict[str, Any], patch: dict[str, Any]) -> None:
    section = twins.patch_section(twins.Section(), document, now="t1", name="desired")
    section = twins.patch_section(section, patch, now="t2", name="desired")

    def keys(value: Any) -> Any:
        return {key: keys(below) for key, below in value.items() if key[0] != "$"} if isinstance(value, dict) else {}

    assert keys(section.metadata) == keys(section.document)
    assert section.metadata["$lastUpdatedVersion"] == section.version == 3


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_patch_or_a_refusal(body: bytes) -> None:
    with contextlib.suppress(ServiceError):
        patch = twins.parse_patch(body, name="reported properties")
        twins.patch_section(twins.Section(), patch, now="now", name="reported")


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'"text"',
        b"{",
        b'{"a": NaN}',
        b'{"a": 1e400}',
        b'{"a.b": 1}',
        b'{"a b": 1}',
        b'{"$a": 1}',
        b'{"a": 4503599627370497}',
        b'{"a": [null]}',
        b'{"a": "\\ud800"}',
        json.dumps({"a": "x" * 4097}).encode(),
        json.dumps({"x" * 1025: 1}).encode(),
        b'{"a":' * 11 + b"1" + b"}" * 11,
        b"[" * 100_000,
    ],
)
def test_what_a_twin_cannot_hold_is_refused(body: bytes) -> None:
    with pytest.raises(ServiceError):
        twins.patch_section(twins.Section(), twins.parse_patch(body, name="twin"), now="now", name="desired")


def test_ten_levels_are_allowed() -> None:
    body = b'{"a":' * 10 + b"1" + b"}" * 10
    assert twins.patch_section(twins.Section(), twins.parse_patch(body, name="t"), now="n", name="d").version == 2


_KEY = "cHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHA="


def test_a_token_covers_its_resource_and_what_is_below_until_it_expires() -> None:
    token = sas.parse_sas(make_sas(resource="hub:8443/devices/a", key=_KEY, expiry=100, policy="device"))
    assert (token.resource, token.policy) == ("hub:8443/devices/a", "device")
    sas.check_sas(token, keys=["eA==", _KEY], resource="HUB:8443/devices/a", now=99)
    sas.check_sas(token, keys=[_KEY], resource="hub:8443/devices/a/modules/b", now=99)
    for keys, resource, now in (
        ([_KEY], "hub:8443/devices/a", 100),
        ([_KEY], "hub:8443/devices/ab", 0),
        ([_KEY], "hub:8443", 0),
        (["eA=="], "hub:8443/devices/a", 0),
        ([], "hub:8443/devices/a", 0),
    ):
        with pytest.raises(RefusedError):
            sas.check_sas(token, keys=keys, resource=resource, now=now)


@given(st.text(max_size=80))
def test_any_text_is_a_token_or_a_refusal(text: str) -> None:
    for candidate in (text, "SharedAccessSignature " + text, f"SharedAccessSignature sr=a&sig={text}&se=99999999999"):
        try:
            sas.check_sas(sas.parse_sas(candidate), keys=[_KEY], resource="a", now=0)
        except RefusedError:
            continue
        raise AssertionError("a made-up token was accepted")
