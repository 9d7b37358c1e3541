"""Runs somebody's Flower app on this device: the ClientApp that the owner installed, and no other code.

A campaign names an app by its name, version and the digest of its files; where the folder of installed apps has just
that, its ClientApp is called in this process with Flower's own message and context. The context's state stays on the
device, for each campaign, and is stored together with the answer before that is sent: a kill in between neither loses
a step of the state nor takes it twice, and work that is asked again gets the same bytes.
"""

import hashlib
import importlib
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp
from flwr.supercore.object_ref import load_app

from shared.errors import FleetlearnError
from shared.files import write_atomically
from shared.flower_apps import FlowerApp, find_app
from shared.flower_records import decode_records, encode_records
from shared.messages.work import FlowerWork
from shared.tensors import decode, encode

CAMPAIGNS_MAX = 16
"""Whose context is kept; that of the one not heard of for longest is forgotten first."""
METRICS_MAX = 64
"""Of an answer's metrics, that go with the result for people to see."""
_SERVER_NODE_ID = 1
_TTL_S = 12 * 3600.0
"""Flower's default; how long work counts is the coordinator's to say."""


class FlowerAppFailedError(FleetlearnError):
    """A Flower app that raised an error, or answered with one."""

    code = "flower_app_failed"


@dataclass(frozen=True)
class FlowerAnswer:
    """What an app answered."""

    records: bytes
    """`shared.flower_records`."""
    metrics: dict[str, float]
    """Those that are one number."""


class FlowerApps:
    """The Flower apps of this device.

    Args:
        folder: One folder below it for each installed app.
        state_dir: Where contexts are kept.
        node_config: What apps are told of this device.
    """

    def __init__(self, folder: Path, state_dir: Path, *, node_config: Mapping[str, bool | int | float | str]) -> None:
        self._folder, self._state_dir, self._node_config = folder, state_dir, dict(node_config)
        self._loaded: tuple[FlowerApp, ClientApp] | None = None

    def answer(self, work_id: str, campaign_id: str, asked: FlowerWork, payload: bytes) -> FlowerAnswer:
        """The app's answer to a message; to one that was answered before, the same.

        Raises:
            FlowerAppNotInstalledError: Not installed, or with other content.
            MalformedRecordsError: The payload is not a message's.
            FlowerAppFailedError: The app failed.
        """
        kept = self._kept(campaign_id)
        if kept is None or kept[0] != work_id:
            app = self._app(asked)
            context = Context(
                run_id=asked.run_id,
                node_id=asked.node_id,
                node_config=dict(self._node_config),
                state=decode_records(kept[2]) if kept else RecordDict(),
                run_config=dict(asked.run_config),
            )
            content = _called(app, _message(work_id, asked, decode_records(payload)), context)
            kept = (work_id, encode_records(content), encode_records(context.state))
            self._keep(campaign_id, kept)
        return FlowerAnswer(kept[1], _figures(decode_records(kept[1])))

    def _app(self, asked: FlowerWork) -> ClientApp:
        # Looked up each time: what the owner removed or changed since is not run, loaded or not.
        found = find_app(self._folder, name=asked.app, version=asked.version, digest=asked.digest)
        if self._loaded is None or self._loaded[0] != found:
            if self._loaded is not None:
                _forget_modules(self._loaded[0])
            _forget_modules(found)
            self._loaded = found, _load(found)
        return self._loaded[1]

    def _kept(self, campaign_id: str) -> tuple[str, bytes, bytes] | None:
        """The newest work that was answered, its answer, and the context's state after it."""
        path = self._path(campaign_id)
        if not path.exists():
            return None
        found = {name: value.tobytes() for name, value in decode(path.read_bytes()).items()}
        return found["work_id"].decode(), found["answer"], found["state"]

    def _keep(self, campaign_id: str, kept: tuple[str, bytes, bytes]) -> None:
        work_id, answer, state = kept
        parts = {"work_id": work_id.encode(), "answer": answer, "state": state}
        self._state_dir.mkdir(parents=True, exist_ok=True)
        path = self._path(campaign_id)
        write_atomically(path, encode({name: np.frombuffer(part, np.uint8) for name, part in parts.items()}))
        newest_last = sorted(self._state_dir.glob("*.safetensors"), key=lambda each: each.stat().st_mtime_ns)
        for old in newest_last[:-CAMPAIGNS_MAX]:
            old.unlink(missing_ok=True)

    def _path(self, campaign_id: str) -> Path:
        # The id comes from outside: as a file name it is only ever used hashed.
        return self._state_dir / f"{hashlib.sha256(campaign_id.encode()).hexdigest()[:32]}.safetensors"


def _forget_modules(app: FlowerApp) -> None:
    """Two apps, or two versions of one, may have modules of one name: what the folder holds is imported anew."""
    own = {path.stem for path in app.folder.iterdir()}
    for name in [name for name in sys.modules if name.split(".")[0] in own]:
        del sys.modules[name]
    folder = str(app.folder.resolve())
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    importlib.invalidate_caches()


def _load(app: FlowerApp) -> ClientApp:
    try:
        found = load_app(app.clientapp, AttributeError, app.folder.resolve())
    # The app is foreign code: whatever its import raises, the answer is that it cannot be used here.
    except Exception as error:
        raise FlowerAppFailedError(
            f"Expected the ClientApp {app.clientapp!r} of {app.name}, got {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, ClientApp):
        raise FlowerAppFailedError(f"Expected a ClientApp at {app.clientapp!r}, got {type(found).__name__}")
    return found


def _called(app: ClientApp, message: Message, context: Context) -> RecordDict:
    try:
        answer = app(message, context)
    # Foreign code again; its error is the answer that its ServerApp gets.
    except Exception as error:
        raise FlowerAppFailedError(f"The ClientApp raised {type(error).__name__}: {error}") from error
    if answer.has_error():
        raise FlowerAppFailedError(f"The ClientApp answered with error {answer.error.code}: {answer.error.reason}")
    return answer.content


def _message(work_id: str, asked: FlowerWork, content: RecordDict) -> Message:
    metadata = Metadata(
        run_id=asked.run_id,
        message_id=work_id,
        src_node_id=_SERVER_NODE_ID,
        dst_node_id=asked.node_id,
        reply_to_message_id="",
        group_id=asked.group,
        created_at=time.time(),
        ttl=_TTL_S,
        message_type=asked.message_type,
    )
    return make_message(metadata, content)


def _figures(records: RecordDict) -> dict[str, float]:
    """The first of the metrics that are one finite number, by their names."""
    pairs = [pair for record in records.metric_records.values() for pair in record.items()]
    numbers = {name: float(value) for name, value in pairs if isinstance(value, int | float) and math.isfinite(value)}
    return dict(list(numbers.items())[:METRICS_MAX])
