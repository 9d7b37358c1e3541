"""One federated round as a value: who was asked, what each answered, and when it is over.

Values in, values out: the caller stores the round, tells it what it heard and what time it is, and obeys its state.
Everything may come twice, late and in any order; whatever the order, a device counts once, and what was decided when
the round closed is never decided again.

    round = open_round(1, attempt=1, quorum=2)
    round = ask(round, ("press-01", "press-02"), deadline_at=160.0)
    round = hear(round, "press-01", Reply.UPDATE)
    round = tick(round, now=120.0)   # still waiting
    round = tick(round, now=160.0)   # abandoned: one update of the two that make a round
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from shared.ids import DeviceId
from shared.lifecycles import advance


class RoundState(StrEnum):
    SELECTING = "selecting"
    WAITING = "waiting"
    AGGREGATING = "aggregating"
    DONE = "done"
    ABANDONED = "abandoned"


class RoundEvent(StrEnum):
    ASK = "ask"
    CLOSE = "close"
    """Everybody answered, or the deadline passed, and there are updates enough."""
    GIVE_UP = "give_up"
    FINISH = "finish"
    """The new model is stored."""


ROUND_TRANSITIONS: Mapping[tuple[RoundState, RoundEvent], RoundState] = {
    (RoundState.SELECTING, RoundEvent.ASK): RoundState.WAITING,
    (RoundState.SELECTING, RoundEvent.GIVE_UP): RoundState.ABANDONED,
    (RoundState.WAITING, RoundEvent.CLOSE): RoundState.AGGREGATING,
    (RoundState.WAITING, RoundEvent.GIVE_UP): RoundState.ABANDONED,
    (RoundState.AGGREGATING, RoundEvent.GIVE_UP): RoundState.ABANDONED,
    (RoundState.AGGREGATING, RoundEvent.FINISH): RoundState.DONE,
}


class Answer(StrEnum):
    """Where one device stands in a round."""

    WAITING = "waiting"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    SILENT = "silent"
    LATE = "late"


class Reply(StrEnum):
    """What is heard of one device; `CLOSE` is the round's own end."""

    UPDATE = "update"
    REFUSE = "refuse"
    FAIL = "fail"
    CLOSE = "close"


_SAID = (Reply.UPDATE, Reply.REFUSE, Reply.FAIL)
_SETTLED = (Answer.DONE, Answer.REFUSED, Answer.FAILED)
ANSWERS: Mapping[tuple[Answer, Reply], Answer] = {
    (Answer.WAITING, Reply.UPDATE): Answer.DONE,
    (Answer.WAITING, Reply.REFUSE): Answer.REFUSED,
    (Answer.WAITING, Reply.FAIL): Answer.FAILED,
    (Answer.WAITING, Reply.CLOSE): Answer.SILENT,
    # A device's first answer stands: the same again changes nothing, another one neither.
    **{(answer, reply): answer for answer in _SETTLED for reply in Reply},
    **{(Answer.SILENT, reply): Answer.LATE for reply in _SAID},
    (Answer.SILENT, Reply.CLOSE): Answer.SILENT,
    **{(Answer.LATE, reply): Answer.LATE for reply in Reply},
}


@dataclass(frozen=True)
class Round:
    """One try at one round."""

    number: int
    """From 1."""
    attempt: int
    """From 1; an abandoned round is tried again under the same number."""
    quorum: int
    state: RoundState = RoundState.SELECTING
    deadline_at: float = 0.0
    answers: Mapping[DeviceId, Answer] = field(default_factory=dict)

    def count(self, answer: Answer) -> int:
        return sum(1 for found in self.answers.values() if found is answer)

    @property
    def accepted(self) -> tuple[DeviceId, ...]:
        """Devices whose updates make the new model, sorted: the sum of floats depends on the order."""
        return tuple(sorted(device for device, answer in self.answers.items() if answer is Answer.DONE))


def open_round(number: int, *, attempt: int, quorum: int) -> Round:
    """A round that still looks for its devices."""
    return Round(number, attempt=attempt, quorum=quorum)


def ask(current: Round, devices: Iterable[DeviceId], *, deadline_at: float) -> Round:
    """The round once its devices were asked; with fewer devices than the quorum it is given up instead."""
    answers = dict.fromkeys(sorted(set(devices)), Answer.WAITING)
    if len(answers) < current.quorum:
        return give_up(current)
    state = advance(ROUND_TRANSITIONS, current.state, RoundEvent.ASK)
    return replace(current, state=state, answers=answers, deadline_at=deadline_at)


def hear(current: Round, device: DeviceId, reply: Reply) -> Round:
    """The round after a device's reply: twice is once, late is `late`, and a device that was not asked is not heard."""
    return hear_all(current, {device: reply})


def hear_all(current: Round, replies: Mapping[DeviceId, Reply]) -> Round:
    """The round after replies of several devices, in any order: one copy of its answers, not one for each."""
    changed = {
        device: after
        for device, reply in replies.items()
        if (before := current.answers.get(device)) is not None and (after := ANSWERS[before, reply]) is not before
    }
    return replace(current, answers={**current.answers, **changed}) if changed else current


def tick(current: Round, *, now: float, enough: int | None = None) -> Round:
    """The round at this time: closed when nobody is waited for or the deadline passed, given up when hope is gone.

    With `enough`, it closes with so many updates, whoever still trains: more devices were asked than are needed, and
    the slow ones do not hold up the others (Bonawitz et al. 2019, section 2.2); or the round is an asynchronous one.
    """
    if current.state is not RoundState.WAITING:
        return current
    accepted, waiting = current.count(Answer.DONE), current.count(Answer.WAITING)
    if accepted + waiting < current.quorum:
        return give_up(current)
    if enough is not None and accepted >= max(enough, current.quorum):
        return _close(current)
    if waiting and now < current.deadline_at:
        return current
    return _close(current) if accepted >= current.quorum else give_up(current)


def extend(current: Round, *, deadline_at: float) -> Round:
    """The round with at least this deadline: devices could not answer a coordinator that was away."""
    return replace(current, deadline_at=max(current.deadline_at, deadline_at))


def give_up(current: Round) -> Round:
    """The round, abandoned: its updates are not used."""
    return _silence(replace(current, state=advance(ROUND_TRANSITIONS, current.state, RoundEvent.GIVE_UP)))


def finish(current: Round) -> Round:
    """The round, done: its model is stored."""
    return replace(current, state=advance(ROUND_TRANSITIONS, current.state, RoundEvent.FINISH))


def why_abandoned(current: Round) -> str:
    """One sentence for the operator."""
    names = (Answer.DONE, Answer.REFUSED, Answer.FAILED, Answer.SILENT, Answer.LATE)
    counted = ", ".join(f"{current.count(answer)} {answer.value}" for answer in names if current.count(answer))
    return f"Expected {current.quorum} updates in round {current.number}, got {counted or 'no device to ask'}"


def _close(current: Round) -> Round:
    return _silence(replace(current, state=advance(ROUND_TRANSITIONS, current.state, RoundEvent.CLOSE)))


def _silence(current: Round) -> Round:
    return replace(
        current, answers={device: ANSWERS[answer, Reply.CLOSE] for device, answer in current.answers.items()}
    )
