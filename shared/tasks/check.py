"""Is a task sound? Each check answers one question in one sentence; `fleetlearn task check NAME` prints them.

Stands on the task's own data where that is installed, otherwise on random inputs of its shape. Needs the extras `train`
and `cloud` (torch, Opacus, ONNX Runtime).
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from shared.tasks.errors import TaskDataError
from shared.tasks.onnx_export import export_onnx
from shared.tasks.quiet import quiet
from shared.tasks.storage import content_digest
from shared.tasks.task import Examples, Inputs, Role, Task
from shared.tasks.torch_model import load_state, state_tensors, trained_names
from shared.tensors import decode, encode
from shared.trees.boosting import Boosting, boosting_of
from shared.trees.ensemble import NOTHING
from shared.trees.growing import Growth, grow

_EXAMPLES = 12
_STEPS = 2
_GRADIENT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Finding:
    """The answer to one question about a task."""

    name: str
    sound: bool
    message: str


class UnsoundError(Exception):
    """What a check found wrong, as a sentence."""


def check_task(task: Task) -> list[Finding]:
    """One finding for each check, in order; a check that itself fails is a finding too."""
    return [_finding(name, check, task) for name, check in _CHECKS.items()]


def _finding(name: str, check: Callable[[Task], str], task: Task) -> Finding:
    try:
        return Finding(name, True, check(task))
    # A task is foreign code: whatever it raises is what is wrong with it.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        message = lines[0] if isinstance(error, UnsoundError) else f"{type(error).__name__}: {lines[0][:300]}"
        return Finding(name, False, message)


def _parameters(task: Task) -> str:
    """A model is its tensors, and nothing but its seed decides them."""
    first, again = task.model(seed=1), task.model(seed=1)
    tensors = state_tensors(first)
    if content_digest(tensors) != content_digest(state_tensors(again)):
        raise UnsoundError("Expected the same weights from the same seed, got others: draw nothing outside the seed")
    other = task.model(seed=2)
    load_state(other, decode(encode(tensors)))
    if content_digest(state_tensors(other)) != content_digest(tensors):
        raise UnsoundError("Expected weights to survive safetensors and load_state_dict unchanged, got others")
    trained = trained_names(first, task.local_training.trained_parameters)
    count = sum(parameter.numel() for parameter in first.parameters())
    if boosting := boosting_of(task):
        return _trees(task, boosting)
    return f"{len(tensors)} tensors, {count} parameters, of which rounds train {len(trained)} tensors"


def _trees(task: Task, boosting: Boosting) -> str:
    expected, found = (*task.schema.input_shape, len(task.schema.classes)), (boosting.features, boosting.classes)
    if found != expected:
        raise UnsoundError(f"Expected trees of {expected} features and classes, as the schema says, got {found}")
    return f"trees of up to {boosting.depth_max} splits in depth, {len(boosting.outputs)} in a step"


def _schema(task: Task) -> str:
    """Outputs and features have the shapes that the schema says."""
    examples, schema = _examples(task), task.schema
    outputs = _outputs(task.model(seed=1), examples.inputs)
    if outputs.shape != (expected := (len(examples), len(schema.classes))):
        raise UnsoundError(f"Expected outputs of shape {expected}, one column a class, got {outputs.shape}")
    loss = task.loss(torch.from_numpy(outputs), torch.from_numpy(examples.labels))
    if loss.ndim != 0 or not bool(torch.isfinite(loss)):
        raise UnsoundError(f"Expected one finite number as the loss, got shape {tuple(loss.shape)}")
    features = task.features(examples.inputs)
    if features.shape != (expected := (len(examples), len(schema.features))):
        raise UnsoundError(f"Expected features of shape {expected}, one column a name, got {features.shape}")
    if not np.isfinite(features).all():
        raise UnsoundError("Expected finite features, got NaN or infinity")
    return f"{len(schema.classes)} classes and {len(schema.features)} features, as the schema says"


def _per_example_gradients(task: Task) -> str:
    """Opacus can give each example a gradient of its own, and together they are the batch's."""
    if boosting_of(task):
        return "trees have no gradients, and rounds of them no example-level privacy"
    from opacus import GradSampleModule
    from opacus.validators import ModuleValidator

    model = task.model(seed=1)
    if problems := ModuleValidator.validate(model, strict=False):
        raise UnsoundError(f"Expected layers that do not mix examples, got: {problems[0]}")
    examples = _examples(task)
    inputs, labels = torch.from_numpy(examples.inputs), torch.from_numpy(examples.labels)
    # Training mode, as on a device; the same seed twice, so that dropout and the like draw the same.
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(1)
        plain = torch.autograd.grad(task.loss(model.train()(inputs), labels), list(model.parameters()))
        torch.manual_seed(1)
        wrapped = GradSampleModule(model)
        task.loss(wrapped(inputs), labels).backward()  # type: ignore[no-untyped-call]  # torch
    for (name, parameter), expected in zip(model.named_parameters(), plain, strict=True):
        per_example: torch.Tensor = parameter.grad_sample  # type: ignore[attr-defined]  # Opacus' own attribute
        difference = float((per_example.mean(dim=0) - expected).abs().max())
        if difference > _GRADIENT_TOLERANCE * (1 + float(expected.abs().max())):
            raise UnsoundError(f"Expected per-example gradients that average to the batch's, got others for {name!r}")
    return f"the gradients of {len(examples)} examples average to their batch's"


def _onnx_parity(task: Task) -> str:
    """ONNX Runtime computes what torch does."""
    import onnxruntime

    model, inputs, schema = _model(task).eval(), _examples(task).inputs, task.schema
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model, schema, path)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = _outputs(model, inputs)
    (actual,) = session.run([schema.output_name], {schema.input_name: inputs})
    difference = float(np.abs(actual - expected).max() / max(float(np.abs(expected).max()), 1e-12))
    if not difference <= task.tolerance.parity_max:
        raise UnsoundError(f"Expected a difference up to {task.tolerance.parity_max:g} to torch, got {difference:.2g}")
    return f"ONNX Runtime differs from torch by {difference:.1e} of the largest output"


def _model(task: Task) -> torch.nn.Module:
    """A model that computes something: a fresh one of trees has none."""
    model = task.model(seed=1)
    if boosting := boosting_of(task):
        load_state(model, grow(boosting, NOTHING, _examples(task), Growth(_STEPS, learning_rate=0.3)).tensors)
    return model


def _splits(task: Task) -> str:
    """No unit has two roles or two devices, and none is both trained on and held out."""
    owners = {role.value: task.central_data(role) for role in Role}
    for name, data in task.device_slices().items():
        owners[f"{name} (train)"], owners[f"{name} (held out)"] = data.train, data.held_out
    for (one, first), (other, second) in combinations(owners.items(), 2):
        if len(shared := np.intersect1d(first.units, second.units)):
            raise UnsoundError(f"Expected disjoint units, got unit {int(shared[0])} in both {one} and {other}")
    return f"{len(owners)} parts of the data share no {task.privacy_unit}"


def _device_folder(task: Task) -> str:
    """What is written to a device's folder is what the device reads."""
    slices = task.device_slices()
    if not slices:
        return "the task has no natural devices to try"
    name, expected = next(iter(slices.items()))
    with tempfile.TemporaryDirectory() as folder:
        task.write_device_data(Path(folder), (name,))
        found = task.device_data(Path(folder))
    if found.dataset_id != expected.dataset_id or len(found.held_out) != len(expected.held_out):
        raise UnsoundError(f"Expected slice {name!r} back from its folder, got other data")
    return f"slice {name!r} survives its folder: {len(found.train)} examples, {len(found.held_out)} held out"


_CHECKS: dict[str, Callable[[Task], str]] = {
    "parameters": _parameters,
    "schema": _schema,
    "per-example gradients": _per_example_gradients,
    "ONNX parity": _onnx_parity,
    "splits": _splits,
    "device folder": _device_folder,
}


def _examples(task: Task) -> Examples:
    """A few public examples, or random ones where the data is not installed."""
    try:
        public = task.central_data(Role.PUBLIC)
        return Examples(public.inputs[:_EXAMPLES], public.labels[:_EXAMPLES], public.units[:_EXAMPLES])
    except TaskDataError:
        generator = np.random.default_rng(0)
        inputs = generator.normal(size=(_EXAMPLES, *task.schema.input_shape)).astype(np.float32)
        numbers = np.arange(_EXAMPLES, dtype=np.int64)
        return Examples(inputs, numbers % len(task.schema.classes), numbers)


def _outputs(model: torch.nn.Module, inputs: Inputs) -> Inputs:
    model.eval()
    with torch.no_grad():
        outputs: Inputs = model(torch.from_numpy(inputs)).numpy()
    return outputs
