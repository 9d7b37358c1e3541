"""An experiment as a TOML file with every setting in it, defaults too."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from simulations.experiments.experiment import Experiment

Document = Mapping[str, Any]  # what TOML holds


def toml_of(experiment: Experiment) -> str:
    """The file; reading it gives the same experiment."""
    document = _without_nothing(experiment.model_dump(mode="json"))
    plain = {key: value for key, value in document.items() if not isinstance(value, Mapping)}
    lines = [f"{key} = {_value(value)}" for key, value in plain.items()]
    for key, table in document.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{key}]", *(f"{name} = {_value(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for characters of two escapes, and for the delete character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _without_nothing(value: Any) -> Any:
    """TOML has no null: a key without a value is left out."""
    if isinstance(value, Mapping):
        return {key: _without_nothing(inner) for key, inner in value.items() if inner is not None}
    return value
