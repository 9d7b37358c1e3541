"""Writes docs/reference/experiment.md from the models themselves: `python -m tests.docs.experiment_reference`."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from simulations.experiments.experiment import Experiment
from simulations.sweeps.settings import Choices, Range, Sweep

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "experiment.md"
HEAD = """# Experiments

<!-- Written by `python -m tests.docs.experiment_reference`; a test keeps it complete. -->

An experiment is one TOML file for `fleetlearn simulate`, or one `simulations.Experiment` in Python; the keys are the
same. Everything has a default except where the table says *needed*. A key that there is not, a value out of range, and
settings that do not go together are refused before the run, each with its line and what to do.

Where a part is chosen by `name` or `kind`, the name alone stands for the part with its defaults: `strategy =
"fedadam"`, `model = "mlp"`, `data = "physio"`. `--set KEY=VALUE` replaces a key from the command line:
`--set strategy.beta1=0.5`. [Simulate](../tutorials/simulate.md) is the way in.
"""
SWEEP_HEAD = """
# Sweeps

One TOML file for `fleetlearn simulate sweep`: an experiment, and what may vary in it. Values of `parameters` are
choices or ranges; with `when`, they are there only where other parameters have certain values, so that an
architecture's parts come with it.
"""


def page() -> str:
    """The whole page."""
    lines = [HEAD, *_table(Experiment), "", *_parts("", Experiment, set()), SWEEP_HEAD, *_table(Sweep), ""]
    for kind in (Choices, Range):
        lines += [f"## parameters: {kind.__name__.lower()}", "", _doc(kind), "", *_table(kind), ""]
    return "\n".join(lines).rstrip() + "\n"


def _parts(prefix: str, model: type[BaseModel], told: set[type[BaseModel]]) -> Iterator[str]:
    """What is below this model's keys; a model that several keys share is told once, at the first."""
    docs = _attribute_docs(model)
    for name, field in model.model_fields.items():
        kinds = [kind for kind in _models(field.annotation) if kind not in told]
        told.update(kinds)
        if kinds:
            yield f"{'#' * (2 + bool(prefix))} {prefix}{name}"
            yield ""
            if name in docs:
                yield docs[name]
                yield ""
        for kind in kinds:
            if len(kinds) > 1:
                tag = next(key for key in ("name", "kind") if _is_tag(kind, key))
                yield f'### {prefix}{name}: {tag} = "{kind.model_fields[tag].default}"'
                yield ""
            if doc := _doc(kind):
                yield doc
                yield ""
            rows = list(_table(kind, without_tag=len(kinds) > 1))
            if len(rows) > 2:
                yield from rows
                yield ""
        for kind in kinds:
            yield from _parts(f"{prefix}{name}.", kind, told)


def _table(model: type[BaseModel], *, without_tag: bool = False) -> Iterator[str]:
    docs = _attribute_docs(model)
    yield "| key | default | what |"
    yield "|---|---|---|"
    for name, field in model.model_fields.items():
        if without_tag and _is_tag(model, name):
            continue
        said = " ".join(f"{docs.get(name, '')} {_choices(field)}".split()).replace("|", "\\|")
        yield f"| `{name}` | {_default(field)} | {said} |"


def _is_tag(model: type[BaseModel], key: str) -> bool:
    field = model.model_fields.get(key)
    return key in ("name", "kind") and field is not None and get_origin(field.annotation) is Literal


def _default(field: FieldInfo) -> str:
    value = field.default if field.default_factory is None else field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "*needed*"
    if isinstance(value, BaseModel):
        tag = getattr(value, "name", None) or getattr(value, "kind", None)
        return f"`{tag}`" if isinstance(tag, str) else ""
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`" if value != "" else ""


def _choices(field: FieldInfo) -> str:
    if get_origin(field.annotation) is not Literal:
        return ""
    return "One of " + ", ".join(f"`{value}`" for value in get_args(field.annotation)) + "."


def _models(annotation: Any) -> list[type[BaseModel]]:  # whatever a field may be annotated with
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, Annotated, tuple, dict):
        return list(dict.fromkeys(model for part in get_args(annotation) for model in _models(part)))
    return []


def _doc(model: type[BaseModel]) -> str:
    own = model.__dict__.get("__doc__")
    return textwrap.dedent(" " * 4 + own).strip() if own else ""


def _attribute_docs(model: type[BaseModel]) -> dict[str, str]:
    """What stands under each field in the class's source, its bases' too."""
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
            assert isinstance(body, ast.ClassDef)
            for field, below in zip(body.body, body.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                    assert isinstance(field.target, ast.Name)
                    docs[field.target.id] = str(ast.literal_eval(below.value))
    return docs


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
