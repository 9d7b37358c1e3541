"""An experiment from a TOML file and `key=value` overrides; every error names the file, the line and the fix."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from simulations.experiments.errors import ExperimentError, Finding, Key
from simulations.experiments.experiment import Experiment
from simulations.experiments.positions import line_of, lines_of_keys

_FILE_BYTES_MAX = 1 << 20
_MISSING = "Expected a value, got none"
Document = dict[str, Any]
"""What TOML holds: strings, numbers, lists, tables."""


def read_experiment(path: Path, overrides: Iterable[str] = ()) -> Experiment:
    """The experiment of this file.

    Args:
        path: A TOML file.
        overrides: `key=value`, a dot leads into a table: `strategy.name=fedadam`. Values are TOML, or else text.

    Raises:
        ExperimentError: All that is wrong with it.
    """
    overrides = tuple(overrides)
    try:
        document = tomllib.loads(_text_of(path))
    except tomllib.TOMLDecodeError as error:
        raise ExperimentError.at((), _syntax(path, error)) from error
    override(document, overrides)
    try:
        return experiment_of(document)
    except ExperimentError as error:
        raise located(error, path, overrides) from error


def experiment_of(document: Mapping[str, Any]) -> Experiment:
    """The experiment of these settings. Raises ExperimentError."""
    try:
        return Experiment.model_validate(document)
    except ValidationError as error:
        raise ExperimentError(_findings(error.errors(include_url=False))) from error


def located(error: ExperimentError, path: Path, overrides: Iterable[str] = ()) -> ExperimentError:
    """The same error; each finding says the file and the line of its key, or that it came from the command line."""
    lines = lines_of_keys(_text_of(path))
    overridden = [_key(assignment) for assignment in overrides]

    def placed(finding: Finding) -> Finding:
        if not finding.key:
            return finding
        if any(finding.key[: len(key)] == key for key in overridden):
            return Finding((), f"--set {finding}")
        line = line_of(finding.key, lines)
        return Finding((), f"{path}{f':{line}' if line else ''}: {finding}")

    in_order = sorted(error.findings, key=lambda finding: line_of(finding.key, lines) or 0)
    return ExperimentError(placed(finding) for finding in in_order)


def override(document: Document, overrides: Iterable[str]) -> None:
    """Applies `key=value` to the document, in place. Raises ExperimentError."""
    for assignment in overrides:
        key, (_, separator, text) = _key(assignment), assignment.partition("=")
        if not separator or not all(key):
            raise ExperimentError.at((), f"Expected --set key=value, got {assignment[:80]!r}")
        _assign(document, key, _value(text.strip()))


def _key(assignment: str) -> Key:
    return tuple(part.strip() for part in assignment.partition("=")[0].split("."))


def _syntax(path: Path, error: tomllib.TOMLDecodeError) -> str:
    reason, _, place = str(error).partition(" (at line ")
    line = f":{place.split(',')[0]}" if place else ""
    return f"{path}{line}: Expected TOML: {reason}"


def _assign(document: Document, key: Key, value: object) -> None:
    table = document
    for part in key[:-1]:
        inner = table.setdefault(part, {})
        # `strategy = "fedadam"` is short for a table with that name.
        if isinstance(inner, str):
            inner = table[part] = {"kind" if part == "partition" else "name": inner}
        if not isinstance(inner, dict):
            raise ExperimentError.at(key, f"Expected a table at {part!r}, got {inner!r}")
        table = inner
    table[key[-1]] = value


def _value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > _FILE_BYTES_MAX:
            raise ExperimentError.at((), f"Expected an experiment of at most {_FILE_BYTES_MAX} bytes in {path}")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError.at((), f"Expected an experiment's TOML file at {path}, got {error}") from error


def _findings(errors: list[ErrorDetails]) -> list[Finding]:
    findings = [_finding(error) for error in errors]
    # A misspelt key is told once, and not as a missing one too.
    meant = {
        finding.key[:-1] for finding in findings if finding.message.startswith("Unknown") and "mean" in finding.hint
    }
    return [each for each in findings if not (each.message.startswith(_MISSING) and each.key[:-1] in meant)]


def _finding(error: ErrorDetails) -> Finding:
    """What pydantic found, in our words."""
    key, owner, tag = _walk(error["loc"])
    got = repr(error["input"])[:80]
    last = key[-1] if key else ""
    if error["type"] == "extra_forbidden":
        known = [name for name in owner.model_fields if name != last] if owner else []
        near = difflib.get_close_matches(last, known, n=1, cutoff=0.5)
        where = f" in {tag}" if tag else ""
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known)}."
        return Finding(key, f"Unknown key {last!r}{where}", hint)
    if error["type"] == "union_tag_invalid":
        context = error.get("ctx", {})
        expected = str(context.get("expected_tags", ""))
        names = [name.strip("' ") for name in expected.split(",")]
        tag = str(context.get("tag", ""))
        key = (*key, str(context.get("discriminator", "")).strip("'"))
        near = difflib.get_close_matches(tag, names, n=1, cutoff=0.5)
        return Finding(
            key, f"Expected one of {', '.join(names)}, got {tag!r}", f"Did you mean {near[0]!r}?" if near else ""
        )
    if error["type"] == "missing":
        return Finding(key, _MISSING)
    if error["type"] == "value_error":
        return Finding(key, error["msg"].removeprefix("Value error, ").capitalize())
    return Finding(key, f"{error['msg'].replace('Input should be', 'Expected')}, got {got}")


def _walk(location: tuple[int | str, ...]) -> tuple[Key, type[BaseModel] | None, str]:
    """The key without the tags that pydantic puts between, the model that owns its last part, and the last tag."""
    key: list[str] = []
    owner: type[BaseModel] | None = Experiment
    candidates: list[type[BaseModel]] = []
    tag = ""
    for part in location:
        if isinstance(part, int):
            key.append(str(part))
            continue
        tagged = [each for each in candidates if part in _tags(each)]
        if tagged and part not in (owner.model_fields if owner and len(candidates) == 1 else ()):
            owner, candidates, tag = tagged[0], [], part
            continue
        key.append(part)
        if len(candidates) == 1:
            owner = candidates[0]
        field = owner.model_fields.get(part) if owner else None
        if field is not None:
            candidates = _models_in(field.annotation)
            following = candidates[0] if len(candidates) == 1 else None
            owner = following or owner
            candidates = candidates if len(candidates) > 1 else []
    return tuple(key), owner, tag


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(str(field.default) for name in ("name", "kind") if (field := model.model_fields.get(name)) is not None)


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
