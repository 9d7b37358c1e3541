"""The real worker, with kinds of jobs that tests can steer; started by test_runner.py."""

import os
import sys
import time

from cloud.jobs import kinds, worker
from cloud.jobs.context import JobContext, JsonObject
from shared.errors import FleetlearnError


def count(context: JobContext, spec: JsonObject) -> JsonObject:
    """Counts to `to`, one file a number; waits at `wait_at` until `gate` is there."""
    for number in range(int(spec["to"])):
        context.check_cancelled()
        mark = context.work_dir / str(number)
        while number == spec.get("wait_at") and not (context.work_dir / "gate").exists():
            context.report_progress(fraction=number / spec["to"], step="waiting", pid=os.getpid())
            context.check_cancelled()
            time.sleep(0.02)
        with mark.open("a") as file:
            file.write("x")
    return {"counted": spec["to"]}


def listen(context: JobContext, spec: JsonObject) -> JsonObject:
    """Waits long, or until the bell rings."""
    context.report_progress(fraction=0, step="waiting", pid=os.getpid())
    context.sleep(60)
    return {}


def refuse(context: JobContext, spec: JsonObject) -> JsonObject:
    raise FleetlearnError("Expected something else", hint="Do it better.")


def break_down(context: JobContext, spec: JsonObject) -> JsonObject:
    raise ZeroDivisionError("a mistake")


def die(context: JobContext, spec: JsonObject) -> JsonObject:
    os.kill(os.getpid(), 9)
    return {}


if __name__ == "__main__":
    kinds.FUNCTION_BY_KIND.update(
        {
            name: f"tests.cloud.jobs.worker_with_test_jobs:{name}"
            for name in ("count", "listen", "refuse", "break_down", "die")
        }
        | {"campaign": "tests.cloud.jobs.worker_with_test_jobs:count"}
    )
    sys.exit(worker.main(sys.argv[1:]))
