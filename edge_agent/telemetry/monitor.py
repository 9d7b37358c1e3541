"""Watches what the endpoint serves: takes its observations off the hot path and makes reports of them."""

import asyncio
from collections.abc import Callable

import structlog

from edge_agent.serving.observer import Observer
from edge_agent.serving.session import LoadedRelease
from edge_agent.serving.slot import ServingSlot
from edge_agent.telemetry.drift import DriftWindow
from edge_agent.telemetry.windows import serving_report
from shared.messages.events import ServingReport
from shared.tasks.errors import UnknownTaskError
from shared.tasks.registry import load_task

_log = structlog.get_logger()


class Monitor:
    """Follows the served release; one at a time, and what was seen of the one before is reported before the switch.

    Args:
        slot: What is served; `serve` switches it.
        observer: What the endpoint notes.
        drift_examples: Length of the drift window; 0: the profile's own.
        clock: Monotonic seconds.
    """

    def __init__(
        self, slot: ServingSlot, observer: Observer, *, drift_examples: int, clock: Callable[[], float]
    ) -> None:
        self._slot = slot
        self._observer = observer
        self._drift_examples = drift_examples
        self._clock = clock
        self._drift: DriftWindow | None = None
        self._window_started = clock()

    def serve(self, release: LoadedRelease) -> ServingReport | None:
        """Switches to this release; returns the last report about the one before, if it has something to say."""
        report = self.take_report()
        self._observer.take_inputs()
        self._slot.swap(release)
        self._drift = _drift_window(release, self._drift_examples)
        return report

    async def tick(self) -> None:
        """Counts the inputs seen since the last tick, in a thread."""
        inputs, drift = self._observer.take_inputs(), self._drift
        if drift is not None and inputs:
            await asyncio.to_thread(drift.add, inputs)

    def take_report(self) -> ServingReport | None:
        """The report of the window that ends now; None when nothing is served or nobody asked."""
        release = self._slot.release
        window_s = self._clock() - self._window_started
        observed = self._observer.take_window()
        self._window_started = self._clock()
        if release is None or not observed.requests or window_s <= 0:
            return None
        drift = self._drift
        return serving_report(
            observed,
            release_id=release.release_id,
            classes=release.manifest.classes,
            window_s=window_s,
            drift=drift.drift() if drift else [],
            drift_examples=drift.examples if drift else 0,
        )


def _drift_window(release: LoadedRelease, examples: int) -> DriftWindow | None:
    """The release's drift window; None, and a log line, where its task is not installed here: serving goes on."""
    try:
        task = load_task(release.manifest.task)
    except UnknownTaskError as error:
        _log.warning("drift_not_watched", release_id=release.release_id, reason=error.message)
        return None
    names = tuple(feature.feature for feature in release.profile.features)
    if names != task.schema.features:
        reason = f"Expected a profile of {', '.join(task.schema.features)}, got {', '.join(names)}"
        _log.warning("drift_not_watched", release_id=release.release_id, reason=reason)
        return None
    return DriftWindow(release.profile, task.features, window_examples=examples)
