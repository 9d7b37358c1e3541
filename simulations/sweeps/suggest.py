"""From a sweep's parameters to one trial's settings, and those into the experiment's document."""

import json
from collections.abc import Mapping
from copy import deepcopy
from itertools import pairwise
from typing import Any, Protocol

from simulations.experiments.errors import ExperimentError
from simulations.sweeps.settings import Choices, Range, Sweep

Document = dict[str, Any]
"""What TOML holds."""


class Trial(Protocol):
    """What we use of `optuna.Trial`."""

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...


def suggested(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    """A value for each parameter whose conditions hold, in the file's order; a condition names an earlier one."""
    values: dict[str, Any] = {}
    for key, parameter in sweep.parameters.items():
        if all(name in values and values[name] in allowed for name, allowed in parameter.when.items()):
            values[key] = _value(trial, key, parameter)
    return values


def _value(trial: Trial, key: str, parameter: Choices | Range) -> Any:
    if isinstance(parameter, Choices):
        # Optuna stores numbers and text; lists travel as text.
        return json.loads(trial.suggest_categorical(key, [json.dumps(choice) for choice in parameter.choices]))
    if isinstance(parameter.low, int) and isinstance(parameter.high, int):
        return trial.suggest_int(key, parameter.low, parameter.high, log=parameter.log)
    return trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log)


def with_values(document: Mapping[str, Any], values: Mapping[str, Any]) -> Document:
    """The document with these values in it; a number in a key is a place in a list, which grows by one at most."""
    changed = deepcopy(dict(document))
    for key, value in values.items():
        if not key.startswith("_"):
            _put(changed, key.split("."), value)
    return changed


def _put(document: Document, path: list[str], value: Any) -> None:
    inner: Any = document
    for part, following in pairwise(path):
        if isinstance(inner.get(part), str):
            inner[part] = {"kind" if part in ("model", "partition") else "name": inner[part]}
        inner = inner.setdefault(part, [] if following.isdigit() else {})
    last = path[-1]
    if not isinstance(inner, list):
        inner[last] = value
    elif int(last) < len(inner):
        inner[int(last)] = value
    elif int(last) == len(inner):
        inner.append(value)
    else:
        raise ExperimentError.at(tuple(path), f"Expected the place {len(inner)} of the list next, got {last}")
