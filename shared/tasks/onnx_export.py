"""A torch model as one ONNX file with a free batch dimension: the one way in which our models leave torch.

Import it where torch may be imported; this file itself imports torch only inside its function.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from shared.tasks.quiet import quiet
from shared.tasks.task import Schema

if TYPE_CHECKING:
    import torch

OPSET = 20
"""Old enough for every ONNX Runtime since 1.17, new enough for GroupNorm's parts and for quantization."""
_EXAMPLE_BATCH = 4
"""Any size but 0 and 1, which the exporter would take for a constant."""


def export_onnx(model: "torch.nn.Module", schema: Schema, path: Path) -> None:
    """Writes the model, which is in evaluation mode, as one self-contained file; low-rank adapters are merged first.

    Trees need no exporter of torch's.

    Raises whatever the exporter does: it runs the model's own code symbolically.
    """
    # torch costs seconds and hundreds of megabytes: only who exports pays.
    import torch

    from shared.tasks.lora import merged
    from shared.trees.model import TreeModel
    from shared.trees.onnx_export import export_trees

    if isinstance(model, TreeModel):
        export_trees(model.ensemble, schema, path, opset=OPSET)
        return
    example = torch.zeros((_EXAMPLE_BATCH, *schema.input_shape), dtype=torch.float32)
    with quiet():
        torch.onnx.export(
            merged(model),
            (example,),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            input_names=[schema.input_name],
            output_names=[schema.output_name],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
