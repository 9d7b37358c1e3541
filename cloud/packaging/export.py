"""A trained model as one ONNX file, checked, with a free batch dimension."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud.packaging.errors import ExportFailedError
from shared.tasks import onnx_export
from shared.tasks.task import Task
from shared.tasks.torch_model import load_state
from shared.tensors import Tensors

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class OnnxVersions:
    """What a runtime must know to load a model file."""

    opset: int
    ir_version: int


def trained_model(task: Task, tensors: Tensors) -> "torch.nn.Module":
    """The task's model with these weights, in evaluation mode. Raises ModelMismatchError."""
    model = task.model(seed=0)
    load_state(model, tensors)
    return model.eval()


def export_onnx(task: Task, model: "torch.nn.Module", path: Path) -> OnnxVersions:
    """Writes the model as one self-contained file; equal weights give equal bytes.

    Raises:
        ExportFailedError: The exporter or the ONNX checker refuses the model.
    """
    try:
        onnx_export.export_onnx(model, task.schema, path)
        _clean_and_check(path)
    # The exporter runs the model's own code symbolically: whatever it raises, the answer is that it does not export.
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else ""
        raise ExportFailedError(
            f"Expected task {task.name!r} to export to ONNX, got {type(error).__name__}: {reason}",
            hint="`fleetlearn task check` shows which layer it is.",
        ) from error
    return onnx_versions(path)


def onnx_versions(path: Path) -> OnnxVersions:
    """The versions that a model file asks for."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    return OnnxVersions(opset=int(opset), ir_version=int(model.ir_version))


def _clean_and_check(path: Path) -> None:
    """Removes the exporter's notes (source lines and paths of this machine), then runs the full ONNX checker."""
    import onnx

    model = onnx.load(str(path))
    _forget_notes(model.graph)
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _forget_notes(graph: Any) -> None:  # Any: onnx has no types
    del graph.metadata_props[:]
    graph.doc_string = ""
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
