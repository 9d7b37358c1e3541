"""A recorded fleet, replayed: clients come, go and take as long as real devices did.

Client k behaves as device `k mod devices`; a trace shorter than the run starts again. In each of its rounds a client
repeats one piece of its device's work, drawn at random: as long until it fetched, as slow at each example, as slow at
each byte, and lost where the device was. A device without any work of its own repeats another's.
"""

from collections.abc import Sequence

import numpy as np

from simulations.behaviour.availability import Clients, Flags, Seconds
from simulations.behaviour.course import Ints, Load, handed_in
from simulations.behaviour.errors import TraceError
from simulations.behaviour.trace_file import RecordedFleet
from simulations.keyed import Stream


class TracedBehaviour:
    """Replays a trace.

    Args:
        fleet: The trace.
        waits: Whether an update comes later whose client went away meanwhile, or never.
        seed: Of what is drawn.

    Raises:
        TraceError: Nobody in it ever finished a piece of work.
    """

    def __init__(self, fleet: RecordedFleet, *, waits: bool, seed: int) -> None:
        works = fleet.works
        if works.is_lost.all():
            raise TraceError(
                "Expected a trace with work that was done, got none",
                hint="Run a campaign first, then `fleetlearn campaigns trace FILE`.",
            )
        self._fleet, self._waits = fleet, waits
        self._there = _RecordedPresence(fleet)
        self._draw = Stream.named(seed, "trace")
        self._count = np.bincount(works.device, minlength=len(fleet.devices))
        self._first = np.cumsum(self._count) - self._count

    @property
    def notes(self) -> Sequence[str]:
        fleet = self._fleet
        return (
            f"Clients behave as {len(fleet.devices)} recorded devices did in {fleet.length_s / 3600:.1f} hours, "
            f"in {len(fleet.works.device)} pieces of work.",
        )

    def is_there(self, clients: Clients, at_s: Seconds) -> Flags:
        return self._there.state(clients, at_s)[0]

    def durations(self, clients: Clients, starts: Ints, load: Load) -> Seconds:
        works = self._fleet.works
        work = self._repeated(clients, starts)
        # Where it is unknown when the work was fetched, it was at once.
        fetched_s = np.nan_to_num(works.fetched_s[work] - works.start_s[work])
        end_s = works.end_s[work] - works.start_s[work]
        # Model and update are moved while the device has the work and does not train.
        moving_s = np.maximum(end_s - fetched_s - works.train_s[work], 0.0)
        moved = works.bytes_moved[work]
        of_bytes = np.where(moved > 0, (load.bytes_down + load.bytes_up) / np.maximum(moved, 1), 1.0)
        of_examples = np.where(works.examples[work] > 0, load.examples / np.maximum(works.examples[work], 1), 1.0)
        seconds: Seconds = fetched_s + works.train_s[work] * of_examples + moving_s * of_bytes
        return np.where(works.is_lost[work], np.inf, seconds)

    def handed_in(self, clients: Clients, asked_s: Seconds, finished_s: Seconds) -> Seconds:
        return handed_in(self._there, clients, asked_s, finished_s, waits=self._waits)

    def _repeated(self, clients: Clients, starts: Ints) -> Ints:
        """Which piece of work each repeats."""
        device = clients % len(self._fleet.devices)
        own = self._count[device] > 0
        count = np.where(own, self._count[device], len(self._fleet.works.device))
        place = (self._draw.uniform(clients, starts) * count).astype(np.int64)
        repeated: Ints = np.where(own, self._first[device], 0) + place
        return repeated


class _RecordedPresence:
    """When devices were there, again and again."""

    def __init__(self, fleet: RecordedFleet) -> None:
        stays, self._devices, self._length_s = fleet.stays, len(fleet.devices), fleet.length_s
        self._stays = stays
        counts = np.bincount(stays.device, minlength=self._devices)
        self._first, self._end = np.cumsum(counts) - counts, np.cumsum(counts)
        # All devices' stays on one line: device d's times lie from d * length on.
        self._line = stays.device * (self._length_s + 1) + stays.start_s

    def state(self, clients: Clients, at_s: Seconds) -> tuple[Flags, Seconds]:
        device = clients % self._devices
        cycle = np.floor(at_s / self._length_s)
        within_s = at_s - cycle * self._length_s
        place = np.searchsorted(self._line, device * (self._length_s + 1) + within_s, side="right") - 1
        first, end = self._first[device], self._end[device]
        has_stays, is_after_one = end > first, place >= first
        ends_s = self._stays.end_s[np.maximum(place, 0)] if len(self._line) else np.zeros(len(clients))
        is_there = has_stays & is_after_one & (within_s < ends_s)
        following = np.maximum(place, first - 1) + 1
        comes_s = np.where(following < end, self._start(following), self._length_s + self._start(first))
        until_s = cycle * self._length_s + np.where(is_there, np.minimum(ends_s, self._length_s), comes_s)
        return is_there, np.where(has_stays, np.maximum(until_s, np.nextafter(at_s, np.inf)), np.inf)

    def _start(self, place: Ints) -> Seconds:
        if not len(self._line):
            return np.zeros(len(place))
        starts: Seconds = self._stays.start_s[np.minimum(place, len(self._line) - 1)]
        return starts
