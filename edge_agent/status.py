"""What `fleetlearn agent status` shows: read from the state directory, whether or not the agent runs."""

import time
from typing import Any

from edge_agent.errors import AgentError
from edge_agent.identity import read_identity
from edge_agent.state_dir import StateDir, is_locked
from edge_agent.telemetry.spool import Outbox

Json = dict[str, Any]
"""`Any`: JSON."""


def status(state: StateDir, *, now: float) -> Json:
    """The device's state as JSON. Raises NotEnrolledError or DamagedStateError."""
    identity = read_identity(state.identity)
    is_running = is_locked(state)
    release = state.read_release()
    serving = state.read_serving() if is_running else None
    return {
        "device_id": identity.device_id,
        "coordinator_url": identity.enrolment.coordinator_url,
        "hub_hostname": identity.enrolment.hub_url or identity.enrolment.hub_hostname,
        "is_running": is_running,
        "serving_url": serving.get("url", "") if serving else "",
        "release": release.model_dump(mode="json") if release else None,
        "events_waiting": _events_waiting(state),
        "certificate_expires_at": identity.expires_at,
        "certificate_days_left": round((identity.expires_at - now) / 86_400, 2),
    }


def table(document: Json) -> str:
    """The same for people, one fact a line."""
    release = document["release"] or {}
    expires = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(document["certificate_expires_at"]))
    rows = [
        ("device", document["device_id"]),
        ("agent", "runs" if document["is_running"] else "does not run"),
        ("endpoint", document["serving_url"] or "-"),
        ("serves", release.get("active_release_id") or "-"),
        ("asked for", release.get("release_id") or "-"),
        ("state", " ".join(filter(None, (release.get("state"), release.get("error")))) or "-"),
        ("events waiting", document["events_waiting"]),
        ("certificate", f"until {expires}"),
        ("coordinator", document["coordinator_url"]),
        ("hub", document["hub_hostname"]),
    ]
    return "\n".join(f"{name:<15} {value}" for name, value in rows)


def _events_waiting(state: StateDir) -> int:
    if not state.outbox.exists():
        return 0
    try:
        outbox = Outbox.open(state.outbox)
    except AgentError:
        return 0
    try:
        return len(outbox)
    finally:
        outbox.close()
