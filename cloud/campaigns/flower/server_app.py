"""Runs the ServerApp of somebody's Flower app over our fleet, in the campaign's own process.

The app is unmodified: it gets Flower's `Grid` and `Context`, samples nodes, sends, aggregates and ends as it likes. The
generators of Python, NumPy and PyTorch are seeded before it is loaded, so that most apps do the same when they are run
again, which is how they are resumed. What it writes into its working folder is what it leaves behind.
"""

import logging
import random
import shutil
import sys
from collections.abc import Callable, Iterable
from contextlib import chdir, redirect_stdout
from pathlib import Path

import numpy as np
import structlog
from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp
from flwr.supercore.object_ref import load_app

from cloud.campaigns.errors import FlowerAppError
from cloud.campaigns.flower.hub_grid import HubGrid
from cloud.campaigns.flower.line import FleetLine
from cloud.campaigns.flower.runtime import SERVER_NODE_ID, run_id_of
from cloud.campaigns.models import CampaignRow
from cloud.jobs.context import JobContext, JobPausedError, JobStoppedError, JsonObject
from cloud.work import service as work_service
from shared.api.campaigns import FlowerRun
from shared.errors import FleetlearnError
from shared.flower_apps import FlowerApp, find_app
from shared.ids import DeviceId

FILES_SHOWN_MAX = 100
_log = structlog.get_logger()


def run_server_app(
    context: JobContext,
    campaign: CampaignRow,
    *,
    ring: Callable[[Iterable[DeviceId]], None],
    sleep: Callable[[float], None],
) -> JsonObject:
    """What the app left behind, once it ended.

    Raises:
        FlowerAppNotInstalledError: The coordinator has not this very app.
        DepartedError: Run again, it did something else.
        FlowerAppError: It raised an error.
        JobStoppedError: An operator stopped the campaign.
    """
    run = FlowerRun.model_validate(campaign.flower)
    app = find_app(context.flower_apps, name=run.app, version=run.version, digest=run.digest)
    line = FleetLine(context, campaign, ring=ring, sleep=sleep)
    folder = _empty_folder(context.work_dir / "flower-app")
    try:
        # Standard output is nobody's in a job's process; what the app prints belongs into the job's log.
        with chdir(folder), redirect_stdout(sys.stderr):
            _run(app, run, line, run_id=run_id_of(campaign.campaign_id), seed=campaign.seed)
        line.finish()
    except JobPausedError:
        raise  # its work stays open
    except (FleetlearnError, JobStoppedError):
        _take_back(context, campaign.campaign_id)
        raise
    _take_back(context, campaign.campaign_id)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {"files": files[:FILES_SHOWN_MAX], "folder": str(folder)}


def _run(app: FlowerApp, run: FlowerRun, line: FleetLine, *, run_id: int, seed: int) -> None:
    _seed(seed)
    logging.getLogger("flwr").setLevel(logging.INFO)  # the app's words are the operator's to read
    state = Context(run_id, SERVER_NODE_ID, node_config={}, state=RecordDict(), run_config=dict(run.config))
    try:
        server_app = load_app(app.serverapp, AttributeError, app.folder.resolve())
        if not isinstance(server_app, ServerApp):
            raise FlowerAppError(f"Expected a ServerApp at {app.serverapp!r}, got {type(server_app).__name__}")
        _seed(seed)  # again: loading may have drawn numbers, or brought PyTorch
        server_app(HubGrid(run_id=run_id, line=line), state)
    except (FleetlearnError, JobStoppedError):
        raise
    # The app is foreign code: whatever it raises, the campaign ends with it and says so.
    except (Exception, SystemExit) as error:
        _log.exception("server_app_raised")
        line.finish()  # The app may have wrapped what stopped it.
        raise FlowerAppError(
            f"The ServerApp of {app.name} raised {type(error).__name__}: {error}",
            hint="Its output and the traceback are in the job's log on the coordinator's machine.",
        ) from error


def _seed(seed: int) -> None:
    """Seeds the generators that apps use without saying so: Python's, NumPy's legacy one, and PyTorch's if it is there.

    Where an app loads PyTorch later, that begins with the same seed in each process anyway.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _empty_folder(folder: Path) -> Path:
    """Emptied: an app that finds its own files of before would go on from them, and not do the same again."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _take_back(context: JobContext, campaign_id: str) -> None:
    with context.sessions() as session, session.begin():
        work_service.expire_campaign(session, campaign_id, now=context.now())
