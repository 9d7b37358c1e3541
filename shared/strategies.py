"""Strategies by name, with their settings: one value that experiments, campaigns and the API all say alike.

    strategy("fedadam", {"server_learning_rate": 0.03})
    strategy("fednova", assignments(["server.name=adam", "server.beta1=0.5"]))

What they do is elsewhere: `cloud.aggregation.choice` has the server's half (`rule_of`, or `robust_rule_of`), and
`edge_agent.training.algorithms.choice.algorithm_of` the client's; each says which paper it follows. A strategy as a
document is `model_dump()`; `StrategySettings` reads it as part of a larger model.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, cast, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from shared.errors import FleetlearnError


class UnknownStrategyError(FleetlearnError):
    """A strategy's name that there is not."""

    code = "unknown_strategy"


class StrategySettingError(FleetlearnError):
    """A setting that its strategy does not have, or a value out of its range."""

    code = "strategy_setting"


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    is_plain_on_clients: ClassVar[bool] = True
    """Whether clients train as they do for FedAvg, and need not know the strategy."""
    extras: ClassVar[tuple[str, ...]] = ()
    """Vectors that clients send beside the update."""
    metrics: ClassVar[tuple[str, ...]] = ()
    """Figures that the server needs of each client, beside its number of examples."""
    is_remembered_by_clients: ClassVar[bool] = False
    """Whether clients keep something from one of their rounds to the next."""

    @property
    def pull(self) -> float:
        """How strongly a client's gradients are pulled back to the model that was sent."""
        return 0.0


Rate = Annotated[float, Field(gt=0, le=1000)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value)]
"""Prefixes of parameter names; as text, separated by commas."""


class ServerSgdSettings(_Settings):
    name: Literal["sgd"] = "sgd"
    learning_rate: Rate = 1.0
    momentum: Decay = 0.0


class ServerAdagradSettings(_Settings):
    name: Literal["adagrad"] = "adagrad"
    learning_rate: Rate = 0.1
    adaptivity: Rate = 1e-3


class _WithMoments(_Settings):
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    adaptivity: Rate = 1e-3


class ServerAdamSettings(_WithMoments):
    name: Literal["adam"] = "adam"
    learning_rate: Rate = 0.1


class ServerYogiSettings(_WithMoments):
    name: Literal["yogi"] = "yogi"
    learning_rate: Rate = 0.01


ServerSettings = Annotated[
    ServerSgdSettings | ServerAdagradSettings | ServerAdamSettings | ServerYogiSettings, Field(discriminator="name")
]


class _WithServer(_Settings):
    server: ServerSettings = ServerSgdSettings()
    """What the server does with the mean update; by default it adds it to the model."""

    @field_validator("server", mode="before")
    @classmethod
    def _plain_unless_named(cls, value: Any) -> Any:
        return {"name": "sgd", **value} if isinstance(value, dict) else value


class FedAvgSettings(_WithServer):
    name: Literal["fedavg"] = "fedavg"


class FedProxSettings(_WithServer):
    is_plain_on_clients = False
    name: Literal["fedprox"] = "fedprox"
    proximal: float = Field(default=0.01, ge=0, le=1000)
    """The paper's mu: how strongly each step is pulled back to the model that was sent."""

    @property
    def pull(self) -> float:
        return self.proximal


class FedAvgMSettings(_Settings):
    name: Literal["fedavgm"] = "fedavgm"
    server_learning_rate: Rate = 1.0
    server_momentum: Decay = 0.9

    @property
    def server(self) -> ServerSgdSettings:
        return ServerSgdSettings(learning_rate=self.server_learning_rate, momentum=self.server_momentum)


class FedAdagradSettings(_Settings):
    name: Literal["fedadagrad"] = "fedadagrad"
    server_learning_rate: Rate = 0.1
    adaptivity: Rate = 1e-3

    @property
    def server(self) -> ServerAdagradSettings:
        return ServerAdagradSettings(learning_rate=self.server_learning_rate, adaptivity=self.adaptivity)


class FedAdamSettings(_WithMoments):
    name: Literal["fedadam"] = "fedadam"
    server_learning_rate: Rate = 0.1

    @property
    def server(self) -> ServerAdamSettings:
        return ServerAdamSettings(learning_rate=self.server_learning_rate, **_moments(self))


class FedYogiSettings(_WithMoments):
    name: Literal["fedyogi"] = "fedyogi"
    server_learning_rate: Rate = 0.01

    @property
    def server(self) -> ServerYogiSettings:
        return ServerYogiSettings(learning_rate=self.server_learning_rate, **_moments(self))


class ScaffoldSettings(_Settings):
    is_plain_on_clients = False
    is_remembered_by_clients = True
    extras = ("control",)
    name: Literal["scaffold"] = "scaffold"
    server_learning_rate: Rate = 1.0


class FedNovaSettings(_WithServer):
    is_plain_on_clients = False
    metrics = ("steps",)
    name: Literal["fednova"] = "fednova"
    momentum: Decay = 0.0
    """Of the clients' SGD."""
    proximal: float = Field(default=0.0, ge=0, le=1000)
    client_learning_rate: Rate = 0.1
    """Of the clients' SGD; used only together with `proximal`."""

    @property
    def pull(self) -> float:
        return self.proximal


class FedDynSettings(_Settings):
    is_plain_on_clients = False
    is_remembered_by_clients = True
    name: Literal["feddyn"] = "feddyn"
    strength: Rate = 0.1
    """The paper's alpha."""

    @property
    def pull(self) -> float:
        return self.strength


class QFedAvgSettings(_WithServer):
    is_plain_on_clients = False
    metrics = ("start-loss",)
    name: Literal["qfedavg"] = "qfedavg"
    q: float = Field(default=0.1, ge=0, le=100)
    """0 treats all updates alike; the more, the more the worst-off clients count."""
    client_learning_rate: Rate = 0.1


class FedBuffSettings(_WithServer):
    name: Literal["fedbuff"] = "fedbuff"
    buffer: int = Field(default=10, ge=1, le=100_000)
    """Updates to a step of the server."""
    staleness_exponent: float = Field(default=0.5, ge=0, le=10)
    staleness_max: int = Field(default=20, ge=0, le=1_000_000)
    """Staler updates are discarded."""


class FedPerSettings(_WithServer):
    is_plain_on_clients = False
    is_remembered_by_clients = True
    name: Literal["fedper"] = "fedper"
    local: Names = Field(min_length=1)
    """Prefixes of the parameters that stay on each client, usually the last layer's."""


class FedRepSettings(_WithServer):
    is_plain_on_clients = False
    is_remembered_by_clients = True
    name: Literal["fedrep"] = "fedrep"
    local: Names = Field(min_length=1)
    """Prefixes of the parameters of the head, which stays on each client."""
    head_share: float = Field(default=0.8, gt=0, lt=1)
    """Of a round's steps: these train the head first, the others the shared body after it."""


class FedBnSettings(_WithServer):
    is_plain_on_clients = False
    is_remembered_by_clients = True
    name: Literal["fedbn"] = "fedbn"


class DittoSettings(_WithServer):
    is_plain_on_clients = False
    is_remembered_by_clients = True
    name: Literal["ditto"] = "ditto"
    strength: float = Field(default=1.0, ge=0, le=1000)
    """The paper's lambda: how close each client's own model stays to the shared one."""

    @property
    def pull(self) -> float:
        return self.strength


class _Robust(_WithServer):
    """The update that its rule combines goes to the server's optimizer, as a mean update would."""


class MedianSettings(_Robust):
    name: Literal["median"] = "median"


class TrimmedMeanSettings(_Robust):
    name: Literal["trimmed_mean"] = "trimmed_mean"
    trimmed_fraction: float = Field(default=0.2, gt=0, lt=0.5)
    """Of the clients, cut from each end: the share of liars that is withstood."""


class _WithLiars(_Robust):
    liars: int = Field(default=1, ge=0, le=1_000_000)
    """How many clients of a round may lie."""


class KrumSettings(_WithLiars):
    name: Literal["krum"] = "krum"


class MultiKrumSettings(_WithLiars):
    name: Literal["multi_krum"] = "multi_krum"
    selected: int | None = Field(default=None, ge=1, le=1_000_000)
    """Updates that are averaged; as many as the promise allows unless said."""


class BulyanSettings(_WithLiars):
    name: Literal["bulyan"] = "bulyan"
    is_selected_at_once: bool = False
    """As Flower selects; the paper selects one by one."""


class GeometricMedianSettings(_Robust):
    name: Literal["geometric_median"] = "geometric_median"
    smoothing: float = Field(default=1e-6, gt=0, le=1)


class NormClippingSettings(_Robust):
    name: Literal["norm_clipping"] = "norm_clipping"
    norm_max: float | None = Field(default=None, gt=0)
    """The bound; the median of a round's norms unless said."""


class FedXgbBaggingSettings(_Settings):
    name: Literal["fedxgb_bagging"] = "fedxgb_bagging"
    is_averaged: bool = False
    """Whether a round's clients share one step of boosting in equal parts; as in Flower, each counts in full."""


RobustSettings = (
    MedianSettings
    | TrimmedMeanSettings
    | KrumSettings
    | MultiKrumSettings
    | BulyanSettings
    | GeometricMedianSettings
    | NormClippingSettings
)
"""Strategies that see all updates of a round side by side; for `isinstance`, too."""

PersonalSettings = FedPerSettings | FedRepSettings | FedBnSettings | DittoSettings
"""Strategies with which each client has a model of its own; for `isinstance`, too."""

StrategySettings = Annotated[
    FedAvgSettings
    | FedProxSettings
    | FedAvgMSettings
    | FedAdagradSettings
    | FedAdamSettings
    | FedYogiSettings
    | ScaffoldSettings
    | FedNovaSettings
    | FedDynSettings
    | QFedAvgSettings
    | FedBuffSettings
    | FedPerSettings
    | FedRepSettings
    | FedBnSettings
    | DittoSettings
    | RobustSettings
    | FedXgbBaggingSettings,
    Field(discriminator="name"),
]
"""Any strategy with its settings; the type of a field in a larger model."""

STRATEGIES: Mapping[str, type[_Settings]] = {
    kind.model_fields["name"].default: kind for kind in get_args(get_args(StrategySettings)[0])
}
"""Settings by the strategy's name."""


def strategy(name: str, settings: Mapping[str, Any] | None = None) -> StrategySettings:
    """The strategy, with its own defaults for what is not said. Numbers may be text.

    Raises:
        UnknownStrategyError: No strategy has this name.
        StrategySettingError: A setting is unknown, missing, or out of range.
    """
    if (kind := STRATEGIES.get(name)) is None:
        raise UnknownStrategyError(f"Expected a strategy among {', '.join(sorted(STRATEGIES))}, got {name[:80]!r}")
    try:
        return cast("StrategySettings", kind.model_validate(dict(settings or {}) | {"name": name}))
    except ValidationError as error:
        raise StrategySettingError(_problem(kind, name, error)) from error


def expect_stable(settings: StrategySettings, *, learning_rate: float) -> None:
    """Raises StrategySettingError where a client's step would be pulled back beyond the model that was sent."""
    if settings.pull * learning_rate > 1:
        raise StrategySettingError(
            f"Expected a pull to the sent model of at most {1 / learning_rate:g}, as the clients' learning rate is "
            f"{learning_rate:g}, got {settings.pull:g}, which overshoots"
        )


def kept_on_clients(settings: _Settings, names: Sequence[str], trained: Sequence[str]) -> tuple[str, ...]:
    """Those of the trained parameters that stay on each client: these names, if they are some of them and not all.

    Raises:
        StrategySettingError: Nothing would stay on a client, or nothing would be shared.
    """
    kept = tuple(name for name in trained if name in set(names))
    if not 0 < len(kept) < len(trained):
        raise StrategySettingError(
            f"Expected {settings.model_dump()['name']} to keep some of the trained parameters on clients, and to share "
            f"others; got {len(kept)} of {len(trained)} to keep: the trained are {', '.join(trained)}"
        )
    return kept


def assignments(pairs: Iterable[str]) -> dict[str, Any]:
    """Settings from `key=value`; a dot in a key leads into a setting's own settings. Raises StrategySettingError."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise StrategySettingError(f"Expected a setting as key=value, got {pair[:80]!r}")
        *outer, last = key.strip().split(".")
        inner = settings
        for part in outer:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise StrategySettingError(f"Expected {part!r} to have settings or a value, got both")
        inner[last] = value.strip()
    return settings


def _moments(settings: _WithMoments) -> dict[str, float]:
    return {"beta1": settings.beta1, "beta2": settings.beta2, "adaptivity": settings.adaptivity}


def _problem(kind: type[_Settings], name: str, error: ValidationError) -> str:
    """One sentence with the setting, what it may be, and what came."""
    first = error.errors(include_url=False)[0]
    # Pydantic puts the chosen kind of a nested setting into the path; it is no part of the key.
    owner, field = kind, None
    keys: list[str] = []
    for part in first["loc"]:
        if (nested := _SERVERS.get(str(part))) is not None and keys:
            owner = nested
            continue
        keys.append(str(part))
        field = owner.model_fields.get(str(part))
    key, got = ".".join(keys), str(first.get("input"))[:80]
    if first["type"] == "extra_forbidden":
        known = ", ".join(setting for setting in owner.model_fields if setting != "name")
        return f"Expected settings of {name} among {known or 'none'}, got {key!r}"
    if first["type"] == "missing":
        return f"Expected {key!r} of {name}, which has no default"
    if limits := _range(field):
        return f"Expected {key!r} of {name} {limits}, got {got}"
    return f"Expected {key!r} of {name}: {first['msg']}"


def _range(field: FieldInfo | None) -> str:
    words = {Gt: ("gt", "above"), Ge: ("ge", "from"), Lt: ("lt", "below"), Le: ("le", "up to")}
    found = {type(limit): limit for limit in (field.metadata if field else ()) if type(limit) in words}
    return " and ".join(
        f"{word} {getattr(found[kind], name):g}" for kind, (name, word) in words.items() if kind in found
    )


_SERVERS: Mapping[str, type[_Settings]] = {
    kind.model_fields["name"].default: kind for kind in get_args(get_args(ServerSettings)[0])
}
