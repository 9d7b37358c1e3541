"""Makes a trace of the fleet from what the coordinator keeps anyway: work and its results, and serving reports. Pure.

A device is known to be there when it is asked, since only such devices are asked, until it answers, and whenever a
report of it arrives. Such times that are no further apart than `gap_s` are one stay.
"""

from collections.abc import Iterable, Mapping, Sequence

from cloud.work.service import WorkOutcome
from shared.api.traces import Trace, TraceKind, TraceRow

Moments = Mapping[str, Sequence[float]]
"""Device to moments at which something of it arrived, in any order."""
Stay = tuple[float, float]


def trace_of(works: Iterable[WorkOutcome], heard: Moments, *, gap_s: float) -> Trace:
    """The trace, by device and time.

    Args:
        works: What was asked, in any order.
        heard: When reports came.
        gap_s: Silence after which a device counts as gone.
    """
    works = list(works)
    there: dict[str, list[Stay]] = {device: [(at, at) for at in moments] for device, moments in heard.items()}
    for work in works:
        until = _answered_at(work) or work.fetched_at or work.created_at
        there.setdefault(work.device_id, []).append((work.created_at, until))
    started_at = min((start for stays in there.values() for start, _ in stays), default=0.0)
    rows = [_work_row(work, started_at) for work in works]
    rows += [
        TraceRow(client=device, kind=TraceKind.ONLINE, start_s=start - started_at, end_s=end - started_at)
        for device, stays in there.items()
        for start, end in joined(stays, gap_s=gap_s)
    ]
    return Trace(started_at=started_at, rows=sorted(rows, key=lambda row: (row.client, row.kind, row.start_s)))


def joined(stays: Iterable[Stay], *, gap_s: float) -> list[Stay]:
    """The stays in order; those without a longer silence between them are one."""
    found: list[Stay] = []
    for start, end in sorted(stays):
        if found and start - found[-1][1] <= gap_s:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _work_row(work: WorkOutcome, started_at: float) -> TraceRow:
    result, answered_at = work.result, _answered_at(work)
    return TraceRow(
        client=work.device_id,
        kind=TraceKind.WORK,
        start_s=work.created_at - started_at,
        fetched_s=None if work.fetched_at is None else work.fetched_at - started_at,
        end_s=None if answered_at is None else answered_at - started_at,
        train_s=result.duration_s if result else 0.0,
        examples=int(min(max(result.metrics.get("num-examples", 0.0), 0.0), 1e12)) if result else 0,
        bytes_down=_bytes_down(work),
        bytes_up=result.update.size_bytes if result and result.update else 0,
        outcome=work.state.value,
    )


def _bytes_down(work: WorkOutcome) -> int:
    """What the device says that came down, a difference perhaps; where it says nothing, the model's size."""
    if work.result is not None and work.result.model_bytes is not None:
        return work.result.model_bytes
    return work.model_bytes if work.fetched_at is not None else 0


def _answered_at(work: WorkOutcome) -> float | None:
    return work.finished_at if work.result is not None else None
