"""Answers what devices ask through the broker, many in one commit; the broker may forget each once it is answered.

A device takes only this answer for a promise. A request that is lost anywhere on the way, the coordinator's death
included, comes again: from the broker, which was not told that it arrived, or from the device.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from cloud.hubs.mqtt.store import Answer, MqttStore, Request
from shared.hub.mqtt.connection import RECEIVE_MAX, MqttConnection
from shared.hub.mqtt.topics import Topics
from shared.hub.port import HubError

BATCH_MAX = 500
QUEUE_MAX = 2 * RECEIVE_MAX
"""Requests that wait. A broker that speaks MQTT 5 never sends so many; of another one, further ones are left to it."""
_KEY_CHARACTERS_MAX = 128
_KINDS = frozenset({"hello", "bye", "events", "get", "report"})
_UNANSWERED = frozenset({"bye", "told"})
_DATABASE_AWAY_S = 1.0
_log = structlog.get_logger()


@dataclass(frozen=True)
class _Waiting:
    request: Request
    connection: MqttConnection
    message_id: int | None


class Desk:
    """One coordinator's. `arrived` is set, and replaced, whenever events were stored; `answered` counts."""

    def __init__(self, store: MqttStore, topics: Topics) -> None:
        self._store = store
        self._topics = topics
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(QUEUE_MAX)
        self.arrived = asyncio.Event()
        self.answered = 0

    def take(self, connection: MqttConnection, topic: str, payload: bytes, message_id: int) -> None:
        """Queues a request; what is not one is dropped."""
        sent = self._topics.parse_up(topic)
        if sent is None or len(sent.path) != 2 or sent.path[0] not in _KINDS or len(sent.path[1]) > _KEY_CHARACTERS_MAX:
            connection.acknowledge(message_id)
            return
        with suppress(asyncio.QueueFull):
            kind, key = sent.path
            self._queue.put_nowait(_Waiting(Request(sent.device_id, kind, key, payload), connection, message_id))

    def note_told(self, request: Request, connection: MqttConnection) -> None:
        """The broker took a patch; where there is no room for the note, the device is told again."""
        with suppress(asyncio.QueueFull):
            self._queue.put_nowait(_Waiting(request, connection, None))

    async def serve_next(self) -> None:
        """Waits for a request, and answers it with all that wait by then."""
        batch = [await self._queue.get()]
        while len(batch) < BATCH_MAX and not self._queue.empty():
            batch.append(self._queue.get_nowait())
        await self._serve(batch)

    async def _serve(self, batch: Sequence[_Waiting]) -> None:
        requests = [waiting.request for waiting in batch]
        answers = await self._stored(requests)
        if any(request.kind == "events" for request in requests):
            arrived, self.arrived = self.arrived, asyncio.Event()
            arrived.set()
        for waiting, answer in zip(batch, answers, strict=True):
            self._send(waiting, answer)

    async def _stored(self, requests: Sequence[Request]) -> list[Answer]:
        """The answers, however long the database is away."""
        misses = 0
        while True:
            try:
                return await asyncio.to_thread(self._store.answer, requests)
            except (DataError, IntegrityError) as error:
                return await self._stored_alone(requests, error)
            except SQLAlchemyError as error:
                if misses == 0:
                    _log.warning("device_requests_wait", reason=type(error).__name__)
                misses += 1
                await asyncio.sleep(_DATABASE_AWAY_S)

    async def _stored_alone(self, requests: Sequence[Request], error: SQLAlchemyError) -> list[Answer]:
        """One request that the database does not take must not hold up the others for ever."""
        if len(requests) > 1:
            return [answer for request in requests for answer in await self._stored([request])]
        _log.error("device_request_not_storable", device_id=requests[0].device_id, reason=type(error).__name__)
        return [Answer(400, {"error": "the coordinator's database does not take it"})]

    def _send(self, waiting: _Waiting, answer: Answer) -> None:
        request, connection = waiting.request, waiting.connection
        if request.kind not in _UNANSWERED:
            topic = self._topics.down(request.device_id, "answers", request.key, str(answer.status))
            self.answered += 1
            with suppress(HubError):  # the connection is gone: the device asks again
                connection.post(topic, _body(answer))
        if waiting.message_id is not None:
            connection.acknowledge(waiting.message_id)


def _body(answer: Answer) -> bytes:
    if answer.body is None:
        return b""
    return json.dumps(answer.body, separators=(",", ":"), ensure_ascii=False).encode()
