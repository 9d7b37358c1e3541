"""A message and the bytes behind it come apart as they were put together, whatever the bytes are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.messages.attached import ATTACHED_BYTES_MAX, attach, detach
from shared.messages.base import MalformedMessageError
from shared.messages.events import WorkResult, WorkStatus


@given(st.binary(max_size=300), st.text(max_size=50))
def test_both_come_back(content: bytes, reason: str) -> None:
    result = WorkResult(work_id="w", status=WorkStatus.FAILED, reason=reason)
    document, behind = detach(attach(result, content))
    assert (WorkResult.parse(document), behind) == (result, content)


@pytest.mark.parametrize("body", [b"", b"{}", b"{}\n" + bytes(ATTACHED_BYTES_MAX + 1), b"x" * (1 << 21) + b"\n"])
def test_what_has_no_such_line_or_too_much_behind_it_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        detach(body)
