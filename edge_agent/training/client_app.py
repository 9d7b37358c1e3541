"""The device as a Flower client: `edge_agent.training.client_app:app`.

A message carries `arrays` (the model's state dict), `config` (`task`, `task-version`, settings that the task's own are
overridden with, and `strategy` where it is more than averaging), and where there are any `beside` (vectors of the
strategy's) and `privacy` (a PrivacySpec). The reply carries `arrays` (the trained parameters only), `metrics` and, for
some strategies, `beside`; what they keep between rounds is in the context's state. The node's configuration names the
device's folder as `data-dir`.

The app trains whatever it is told to; inside the agent the worker asks the privacy ledger first.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from pydantic import TypeAdapter, ValidationError

from edge_agent.training.boosting import boost_locally
from edge_agent.training.flower_call import KEPT, record_of, tensors_of
from edge_agent.training.local import Part, evaluate_locally, train_locally
from shared.errors import FleetlearnError
from shared.messages.work import BESIDE, STRATEGY
from shared.privacy import PrivacySpec
from shared.randomness import SecureRandomness
from shared.strategies import FedAvgSettings, StrategySettings
from shared.tasks.errors import UnknownTaskError
from shared.tasks.registry import load_task
from shared.tasks.task import DeviceData, LocalTraining, Task
from shared.tensors import Tensors
from shared.trees.boosting import boosting_of


class MalformedConfigError(FleetlearnError):
    """A configuration that cannot be trained with."""

    code = "malformed_config"


DataLoader = Callable[[Task, Context], DeviceData]


def data_from_folder(task: Task, context: Context) -> DeviceData:
    """What the folder in the node's configuration holds. Raises TaskDataError."""
    return task.device_data(Path(str(context.node_config["data-dir"])))


def make_app(
    load_data: DataLoader = data_from_folder,
    randomness: Callable[[], SecureRandomness] = SecureRandomness.from_system,
) -> ClientApp:
    """A ClientApp over this data; simulations bring their own, tests also fix the randomness."""
    client = ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        config = _config(message)
        task, privacy = requested_task(config), _privacy(message)
        model, data = tensors_of(message.content.array_records["arrays"]), load_data(task, context)
        settings = settings_from(config, task.local_training.chosen(private=privacy is not None))
        if boosting := boosting_of(task):
            _expect_no_privacy(task, privacy)
            update = boost_locally(task, boosting, model, data, settings=settings, randomness=randomness())
        else:
            update = train_locally(
                task,
                model,
                data,
                settings=settings,
                privacy=privacy,
                randomness=randomness(),
                part=_part(message, context),
            )
        if update.kept:
            context.state[KEPT] = record_of(update.kept)
        return _reply(message, update.metrics, update.tensors, beside=update.beside)

    @client.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        task = requested_task(_config(message))
        arrays = tensors_of(message.content.array_records["arrays"])
        return _reply(message, evaluate_locally(task, arrays, load_data(task, context)))

    return client


app = make_app()


def _expect_no_privacy(task: Task, privacy: PrivacySpec | None) -> None:
    """Raises MalformedConfigError: whoever asked would believe in a protection that is not there."""
    if privacy is not None:
        raise MalformedConfigError(f"Expected trees of {task.name} without privacy, which noises gradients, got some")


def _part(message: Message, context: Context) -> Part:
    arrays, kept = message.content.array_records, context.state.array_records
    return Part(
        strategy=strategy_of(dict(_config(message))),
        received=tensors_of(arrays[BESIDE]) if BESIDE in arrays else {},
        kept=tensors_of(kept[KEPT]) if KEPT in kept else {},
    )


def requested_task(config: ConfigRecord) -> Task:
    """The task the message names, in that version. Raises UnknownTaskError."""
    task = load_task(str(config["task"]))
    if task.version != (wanted := str(config.get("task-version", task.version))):
        raise UnknownTaskError(
            f"Expected version {wanted!r} of task {task.name!r}, got {task.version!r} installed",
            hint="Install the same release of the task's package on the device and in the cloud.",
        )
    return task


def strategy_of(config: Mapping[str, object]) -> StrategySettings:
    """What the message says that is not plain averaging. Raises MalformedConfigError for what this agent cannot do."""
    if STRATEGY not in config:
        return FedAvgSettings()
    try:
        return TypeAdapter[StrategySettings](StrategySettings).validate_json(str(config[STRATEGY]))
    except ValidationError as error:
        raise MalformedConfigError(
            f"Expected a strategy that this agent knows, got {str(config[STRATEGY])[:80]}",
            hint="Bring the agent up to the coordinator's version.",
        ) from error


def settings_from(config: ConfigRecord, defaults: LocalTraining) -> LocalTraining:
    """The task's settings, where the message does not say otherwise."""
    prefixes = config.get("trained-parameters")
    return dataclasses.replace(
        defaults,
        steps=int(_number(config, "steps", defaults.steps)),
        learning_rate=_number(config, "learning-rate", defaults.learning_rate),
        sampling_rate=_number(config, "sampling-rate", defaults.sampling_rate),
        trained_parameters=defaults.trained_parameters if prefixes is None else tuple(str(prefixes).split()),
    )


def _config(message: Message) -> ConfigRecord:
    return message.content.config_records["config"]


def _number(config: ConfigRecord, key: str, default: float) -> float:
    value = config.get(key, default)
    if not isinstance(value, int | float):
        raise MalformedConfigError(f"Expected a number for {key!r} in the configuration, got {type(value).__name__}")
    return float(value)


def _privacy(message: Message) -> PrivacySpec | None:
    record = message.content.config_records.get("privacy")
    return None if record is None else PrivacySpec.model_validate(dict(record))


def _reply(
    message: Message, metrics: dict[str, float], tensors: Tensors | None = None, *, beside: Tensors | None = None
) -> Message:
    content = RecordDict({"metrics": MetricRecord({**metrics, "num-examples": int(metrics["num-examples"])})})
    if tensors is not None:
        content["arrays"] = record_of(tensors)
    if beside:
        content[BESIDE] = record_of(beside)
    return Message(content=content, reply_to=message)
