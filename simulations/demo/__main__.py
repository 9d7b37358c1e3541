"""`fleetlearn demo`: the main job on this machine, on real data and real processes, through public interfaces only."""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from fleet import calls
from fleet.client import CoordinatorClient
from shared.errors import FleetlearnError
from shared.exit_codes import ExitCode
from shared.tasks.registry import load_task
from shared.tasks.slices import deal
from shared.tasks.task import Role, Task
from simulations.demo import steps
from simulations.demo.comparison import compare
from simulations.demo.disturbance import choose_disturbance
from simulations.demo.findings import Findings, summarise
from simulations.demo.folder import claimed
from simulations.demo.options import PORT, DemoError, parse, refuse_taken_ports
from simulations.demo.picture import draw
from simulations.demo.processes import Processes, interrupt_on_signals
from simulations.demo.stage import DemoDevice, Stage
from simulations.demo.summary import Summary, show

_UP_TIMEOUT_S = 60


def main(argv: list[str]) -> int:
    """Runs the demonstration; every process it started is stopped when it ends, however it ends."""
    arguments = parse(argv)
    console = Console(stderr=arguments.json)
    interrupt_on_signals()
    task = load_task(arguments.task)
    devices = _devices(task, count=arguments.devices, folder=arguments.data / "devices")
    with claimed(arguments.data):
        refuse_taken_ports(arguments.address)
        try:
            _demonstrate(task, devices, arguments, console)
        except KeyboardInterrupt:
            console.print("Stopped: hub, coordinator and every device have ended. The files stay until the next start.")
            raise
    return ExitCode.OK


def _demonstrate(task: Task, devices: tuple[DemoDevice, ...], arguments: argparse.Namespace, console: Console) -> None:
    with Processes(log_dir=arguments.data / "logs") as processes:
        with _start_cloud(arguments, processes, console) as client:
            stage = Stage(
                task=task,
                devices=devices,
                rounds=arguments.rounds,
                epsilon=arguments.epsilon,
                address=arguments.address,
                data_dir=arguments.data,
                console=console,
                processes=processes,
                client=client,
            )
            summary = _run(stage)
        _finish(summary, arguments, console)
        if arguments.keep_running:
            _keep_running(processes, stage)


def _devices(task: Task, *, count: int, folder: Path) -> tuple[DemoDevice, ...]:
    """Deals the task's natural devices out to `count` demonstration devices, one after another."""
    shares = deal(list(task.device_slices()), devices=count)
    return tuple(DemoDevice(f"watch-{n}", folder / f"watch-{n}", share) for n, share in enumerate(shares, 1))


def _start_cloud(arguments: argparse.Namespace, processes: Processes, console: Console) -> CoordinatorClient:
    cloud_dir = arguments.data / "cloud"
    processes.start("cloud", ["up", "--data", cloud_dir, "--address", arguments.address])
    url = f"https://{arguments.address}:{PORT}"
    ca_file, token_file = cloud_dir / "pki" / "ca.pem", cloud_dir / "operator.token"
    with console.status("Starting the hub and the coordinator"):
        processes.wait_until(
            "the operator's token", lambda: ca_file.exists() and token_file.exists(), timeout_s=_UP_TIMEOUT_S
        )
        client = CoordinatorClient(url, token=token_file.read_text().strip(), ca_file=ca_file)
        processes.wait_until("a healthy coordinator", lambda: _is_healthy(client), timeout_s=_UP_TIMEOUT_S)
    console.print(f"[green]✓[/] Hub and coordinator run at {url} (API pages: /docs)", highlight=False)
    return client


def _is_healthy(client: CoordinatorClient) -> bool:
    try:
        client.send(calls.devices())
    except FleetlearnError:
        return False
    return True


def _run(stage: Stage) -> Summary:
    steps.enrol_devices(stage)
    base = steps.train_base(stage)
    campaign = steps.federate(stage, base)
    federated = stage.client.send(calls.model(str(campaign.result_model_version_id)))
    release = steps.package(stage, federated.model_version_id)
    rollout = steps.roll_out(stage, release)
    if rollout.state != "done":
        raise DemoError(f"Expected the rollout to finish, it is {rollout.state}: {rollout.reason}")
    served_accuracy, latency = steps.infer(stage)
    disturbed = stage.devices[-1].device_id
    disturbance = choose_disturbance(stage.task, stage.task.central_data(Role.UNSEEN))
    alerts, devices = steps.watch_drift(stage, device_id=disturbed, disturbance=disturbance)
    found = Findings(
        base=base,
        federated=federated,
        campaign=campaign,
        release=release,
        rollout=rollout,
        served_accuracy=served_accuracy,
        latency=latency,
        alerts=alerts,
        devices=devices,
        disturbed=(disturbed, disturbance.feature) if disturbance else None,
        comparison=compare(stage, base),
    )
    return summarise(stage, found)


def _finish(summary: Summary, arguments: argparse.Namespace, console: Console) -> None:
    draw(summary, Path(summary.picture))
    (arguments.data / "summary.json").write_text(summary.model_dump_json(indent=2))
    show(summary, console)
    if arguments.json:
        print(summary.model_dump_json())


def _keep_running(processes: Processes, stage: Stage) -> None:
    stage.console.print(
        "Everything keeps running. In another terminal:\n"
        f"  fleetlearn tui --data {stage.cloud_dir}\n"
        f"  fleetlearn devices list --data {stage.cloud_dir}\n"
        "Ctrl-C stops it all.",
        highlight=False,
        soft_wrap=True,
    )
    while True:  # until a signal raises KeyboardInterrupt
        # A device that its operator revokes ends by itself, and takes nothing else with it.
        for name, words in processes.take_ended(besides="cloud").items():
            stage.console.print(f"{name} has ended: {words}", highlight=False, markup=False, soft_wrap=True)
        processes.check()
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
