"""The line between a ServerApp and the fleet: durable, and recorded, so that a ServerApp that starts anew is resumed.

What the app is told, and what it sends, is an event on disk before it goes on; messages are work rows, stored together
with their event. An app that is run again is shown its events first (`tape`).
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from cloud.blobs.store import CorruptObjectError, UnknownObjectError
from cloud.campaigns.errors import DepartedError, FlowerAppError
from cloud.campaigns.flower.hub_grid import FAILED, Instruction, Reply, node_id_of
from cloud.campaigns.flower.recording import Recording
from cloud.campaigns.flower.runtime import run_id_of
from cloud.campaigns.flower.tape import Asked, Nodes, Received, Sent, Tape
from cloud.campaigns.journal import Journal
from cloud.campaigns.models import CampaignRow
from cloud.campaigns.selection import Wanted
from cloud.campaigns.selection import select as select_devices
from cloud.db import reading
from cloud.jobs.context import JobContext
from cloud.work import service as work_service
from cloud.work.models import WorkState
from cloud.work.service import WorkOutcome
from shared.api.campaigns import FlowerRun, SelectionRules
from shared.flower_records import first_difference
from shared.ids import DeviceId
from shared.messages.base import ObjectRef
from shared.messages.work import FlowerWork, Work, WorkKind

POLL_S = 0.25
"""How often one looks for answers that ring no bell: all others end the sleep."""
_TURN_S = 0.02
"""How often a thread looks whether a recorded answer is now for it."""
_LOOK_AGAIN_S = 1.0
"""How often one looks for messages that wait too long, when no answer comes."""
BUSY_S_MAX = 3600.0
"""How long messages wait for devices that another campaign has."""
REPLAY_S_MAX = 60.0
"""How long a recorded answer waits for the app to ask for it."""
_REFUSED = 1
"""Flower's ErrorCode.LOAD_CLIENT_APP_EXCEPTION."""
_UNAVAILABLE = 5
"""Flower's ErrorCode.NODE_UNAVAILABLE."""


class FleetLine:
    """One campaign's line, from wherever its events say it is; safe for several threads.

    Args:
        context: The job's.
        campaign: The campaign's row.
        ring: Rings devices' doorbells and returns at once.
        sleep: Waits some seconds.
    """

    def __init__(
        self,
        context: JobContext,
        campaign: CampaignRow,
        *,
        ring: Callable[[Iterable[DeviceId]], None],
        sleep: Callable[[float], None],
    ) -> None:
        self._context, self._campaign, self._ring, self._sleep = context, campaign, ring, sleep
        self._run = FlowerRun.model_validate(campaign.flower)
        self._journal = Journal(context.sessions, campaign.campaign_id, now=context.now)
        self._journal.wait_in_line(False)  # it may have waited when it was interrupted
        self._started_at = context.now()
        # Flower's compatibility layer calls from a thread for each client.
        self._lock = threading.Lock()
        self._recording = Recording(context.sessions, campaign.campaign_id, now=context.now)
        self._tape = Tape(self._recording.events)
        self._instructions: dict[str, Instruction] = {}
        self._departed: DepartedError | None = None

    def devices(self) -> Sequence[DeviceId]:
        """Whom one may ask now."""
        self._check()
        with self._lock:
            if (seen := self._tape.nodes()) is not None:
                return seen
            found = self._found()
            if self._tape.saw(found):
                self._recording.store(Nodes(found))
            return found

    def send(self, instructions: Sequence[Instruction]) -> Sequence[str]:
        """Stores all as work, or none; what was sent before is not sent again. Raises DepartedError."""
        self._check()
        blobs = self._context.blobs
        refs = {payload: blobs.put(payload) for payload in {one.records for one in instructions}}
        asked = tuple(Asked(one.device, one.message_type, one.group, refs[one.records].digest) for one in instructions)
        with self._lock:
            try:
                work_ids = self._tape.sent(asked)
            except DepartedError as error:
                self._departed = self._explained(error, asked)
                raise self._departed from error
            if work_ids is None:
                works = [self._work(one, refs[one.records], place) for place, one in enumerate(instructions)]
                work_ids = tuple(work.work_id for work in works)
                self._store(Sent(asked, work_ids), works)
            for work_id, one in zip(work_ids, instructions, strict=True):
                self._instructions[work_id] = replace(one, records=b"")  # the blob store has them
            if self._tape.is_at_end:
                self._ring(one.device for one in instructions)
        return work_ids

    def receive(self, work_ids: Sequence[str]) -> Sequence[Reply]:
        """Replies there are."""
        self._check()
        work_ids = [work_id for work_id in work_ids if work_id in self._instructions]
        with self._lock:
            if self._tape.has_answers:
                return self._replies(self._tape.received(work_ids) or ())
            if answered := self._answered(work_ids):
                self._recording.store(Received(answered), round_=self._round_of(answered))
            return self._replies(answered)

    def wait(self, work_ids: Sequence[str], *, timeout_s: float | None) -> Sequence[Reply]:
        """Replies to all of these, in their order; after `timeout_s`, to those that answered."""
        if (shown := self._shown(work_ids)) is not None:
            return self._replies(shown)
        deadline = float("inf") if timeout_s is None else self._context.now() + timeout_s
        looked_at, count = 0.0, -1
        while True:
            self._check()
            now = self._context.now()
            if (
                (newest := self._count_answered(work_ids)) != count
                or now - looked_at >= _LOOK_AGAIN_S
                or now >= deadline
            ):
                looked_at, count = now, newest
                answered = self._answered(work_ids)
                self._report(work_ids, len(answered))
                if len(answered) == len(work_ids) or now >= deadline:
                    break
            self._sleep(POLL_S)
        with self._lock:
            self._recording.store(Received(answered), round_=self._round_of(work_ids))
        return self._replies(answered)

    def _shown(self, work_ids: Sequence[str]) -> tuple[str, ...] | None:
        """What the app got then, when it is its turn; None where the recording has no more. Raises DepartedError."""
        deadline = self._context.now() + REPLAY_S_MAX
        while self._context.now() < deadline:
            self._check()
            with self._lock:
                if not self._tape.has_answers:
                    return None
                if (shown := self._tape.received(work_ids)) is not None:
                    return shown
            self._sleep(_TURN_S)
        self._departed = DepartedError.between(["and to take the answers that it took then"], [])
        raise self._departed

    def finish(self) -> None:
        """Raises what stopped the app, should it have caught that; and DepartedError where it ended too early."""
        self._check()
        self._tape.check_is_at_end()

    def _check(self) -> None:
        self._context.check_cancelled()
        if self._departed is not None:
            raise self._departed

    def _found(self) -> tuple[DeviceId, ...]:
        with reading(self._context.sessions) as session:
            refused = work_service.refusals_of(session, self._campaign.campaign_id)
        wanted = Wanted(
            task=self._campaign.task,
            task_version=self._campaign.task_version,
            only=self._campaign.devices,
            refused=refused,
            # Those that other campaigns have are shown too: a message waits for its device.
            rules=SelectionRules.model_validate(self._campaign.selection),
        )
        fleet = self._journal.fleet(heartbeat_s=self._campaign.heartbeat_s, only=self._campaign.devices)
        return select_devices(fleet, wanted).chosen

    def _work(self, one: Instruction, records: ObjectRef, place: int) -> Work:
        run = self._run
        identity = f"{self._campaign.campaign_id}\n{self._recording.count}\n{place}"
        return Work(
            work_id=hashlib.sha256(identity.encode()).hexdigest()[:32],
            kind=WorkKind.TRAIN if one.message_type.startswith("train") else WorkKind.EVALUATE,
            campaign_id=self._campaign.campaign_id,
            round=one.round,
            task=self._campaign.task,
            task_version=self._campaign.task_version,
            model=records,
            flower=FlowerWork(
                app=run.app,
                version=run.version,
                digest=run.digest,
                message_type=one.message_type,
                group=one.group,
                run_id=run_id_of(self._campaign.campaign_id),
                node_id=node_id_of(one.device),
                run_config=run.config,
            ),
            deadline_s=self._campaign.round_timeout_s,
        )

    def _store(self, sent: Sent, works: Sequence[Work]) -> None:
        """The event and its work, together, once no other campaign has one of the devices. Raises FlowerAppError."""
        deadline, waits = self._context.now() + BUSY_S_MAX, False
        while not self._is_stored(sent, works):
            if self._context.now() >= deadline:
                raise FlowerAppError(f"Expected idle devices within {BUSY_S_MAX:g} s, other campaigns still have some")
            if not waits:
                self._journal.wait_in_line(True)
                waits = True
            self._context.check_cancelled()
            self._sleep(POLL_S)
        if waits:
            self._journal.wait_in_line(False)

    def _is_stored(self, sent: Sent, works: Sequence[Work]) -> bool:
        """Whether the devices were idle, and nobody waits for them longer: then the event and its work are stored."""
        devices = {one.device for one in sent.messages}
        if rivals := self._journal.rivals():
            fleet = self._journal.fleet(heartbeat_s=self._campaign.heartbeat_s, only=devices)
            if any(rival.wants(device) for rival in rivals for device in fleet):
                return False
        with self._context.sessions() as session, session.begin():
            taken = work_service.busy_with(session, except_for=self._campaign.campaign_id)
            if devices & taken.keys():
                return False
            self._recording.add(session, sent, round_=max(work.round for work in works))
            for work, one in zip(works, sent.messages, strict=True):
                work_service.create_work(session, work, device_id=one.device, now=self._context.now())
            return True

    def _count_answered(self, work_ids: Sequence[str]) -> int:
        """A cheap look, to see whether to read them."""
        first = min(self._instructions[work_id].round for work_id in work_ids)
        with reading(self._context.sessions) as session:
            ended = work_service.ended_ids(session, campaign_id=self._campaign.campaign_id, since_round=first)
        return len(ended.intersection(work_ids))

    def _answered(self, work_ids: Sequence[str]) -> tuple[str, ...]:
        return tuple(one.work_id for one in self._outcomes(work_ids) if one.state is not WorkState.PENDING)

    def _outcomes(self, work_ids: Sequence[str]) -> list[WorkOutcome]:
        """In the order of the ids; what waited too long is taken back first."""
        now, limit = self._context.now(), self._campaign.round_timeout_s
        with self._context.sessions() as session, session.begin():
            found = {one.work_id: one for one in work_service.outcomes_of(session, work_ids)}
            stale = [
                one.work_id
                for one in found.values()
                if one.state is WorkState.PENDING and now - max(one.created_at, self._started_at) >= limit
            ]
            if stale:
                work_service.expire(session, work_ids=stale, now=now)
                found |= {one.work_id: one for one in work_service.outcomes_of(session, stale)}
        return [found[work_id] for work_id in work_ids if work_id in found]

    def _replies(self, work_ids: Sequence[str]) -> list[Reply]:
        with reading(self._context.sessions) as session:
            found = {one.work_id: one for one in work_service.outcomes_of(session, work_ids)}
        return [self._reply(found[work_id]) for work_id in work_ids]

    def _reply(self, one: WorkOutcome) -> Reply:
        asked, result = self._instructions[one.work_id], one.result
        if one.state is WorkState.DONE and result is not None and result.update is not None:
            try:
                return Reply(one.work_id, asked, self._context.blobs.get(result.update.digest))
            except (UnknownObjectError, CorruptObjectError) as error:
                return Reply(one.work_id, asked, error=f"Expected an uploaded answer: {error.message}")
        if one.state is WorkState.EXPIRED or result is None:
            limit = self._campaign.round_timeout_s
            return Reply(one.work_id, asked, error=f"No answer within {limit:g} s", error_code=_UNAVAILABLE)
        code = _REFUSED if one.state is WorkState.REFUSED else FAILED
        return Reply(one.work_id, asked, error=result.reason or "Answered with nothing", error_code=code)

    def _round_of(self, work_ids: Sequence[str]) -> int:
        return max((self._instructions[work_id].round for work_id in work_ids), default=0)

    def _report(self, work_ids: Sequence[str], answered: int) -> None:
        asked, rounds = self._instructions[work_ids[0]], self._campaign.rounds
        self._context.report_progress(
            fraction=min(1.0, max(0, asked.round - 1) / rounds) if rounds else 0.0,
            step=f"Round {asked.round}, {asked.message_type}: {answered} of {len(work_ids)} devices answered",
        )

    def _explained(self, error: DepartedError, now: Sequence[Asked]) -> DepartedError:
        """The same with the first record that differs, where it is the content that does."""
        before = self._tape.next_sent()
        pairs = [(old, new) for old in before for new in now if old.device == new.device and old != new]
        for old, new in pairs:
            old_payload, new_payload = (self._context.blobs.get(each.records) for each in (old, new))
            if difference := first_difference(old_payload, new_payload):
                return DepartedError.between([old], [new], difference=difference)
        return error
