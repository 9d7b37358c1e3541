"""What every command shares: the connection's options, output for people or for programs, exit codes.

A command is a function of a `Session` and its own options; `command` adds the options that lead to the session:

    @command(app, "list")
    def list_devices(session: Session) -> None:
        found = session.client.send(calls.devices())
        session.output.show(found, lambda: rich_table(device_table(found, now=session.now)))

Options that go together are a frozen dataclass, each field an option: a parameter of that type takes them all.
"""

import functools
import inspect
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import click
import httpx
import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console, RenderableType

from fleet.client import CoordinatorClient
from fleet.profile import Flags, read_profile
from shared.exit_codes import ExitCode

ShapeT = TypeVar("ShapeT", bound=BaseModel)

_PANEL = "Connection"
UrlOption = Annotated[
    str | None, typer.Option("--url", help="The coordinator's URL (FLEETLEARN_URL).", rich_help_panel=_PANEL)
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file", help="File with the operator's token (FLEETLEARN_TOKEN_FILE).", rich_help_panel=_PANEL
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option("--ca", help="The coordinator's CA certificate in PEM (FLEETLEARN_CA).", rich_help_panel=_PANEL),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Data directory of a coordinator on this machine, with all three.", rich_help_panel=_PANEL
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the API's own JSON and nothing else.")]

_CONNECTION: Mapping[str, tuple[Any, object]] = {
    "url": (UrlOption, None),
    "token_file": (TokenFileOption, None),
    "ca": (CaOption, None),
    "data": (DataOption, None),
    "as_json": (JsonOption, False),
}
WIDTH_PIPED = 220
"""Columns where nobody looks: a table that goes into a file is not folded."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a command takes from the process it runs in; tests give their own."""

    environ: Mapping[str, str] | None = None
    transport: httpx.BaseTransport | None = None
    now: Callable[[], float] = time.time


@dataclass(frozen=True)
class Output:
    """Standard output holds the answer, for people or as JSON; everything else goes to standard error."""

    as_json: bool
    console: Console = field(default_factory=lambda: _console(stderr=False))
    notes: Console = field(default_factory=lambda: _console(stderr=True))

    def show(self, value: BaseModel | Sequence[BaseModel], drawn: Callable[[], RenderableType]) -> None:
        """Prints the value's JSON, or what `drawn` makes of it."""
        if self.as_json:
            print(as_json_text(value))
        else:
            self.console.print(drawn())

    def note(self, text: str) -> None:
        """A sentence for a person."""
        self.notes.print(text, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Session:
    """A connected coordinator and somewhere to show its answers."""

    client: CoordinatorClient
    output: Output
    now: float


def as_json_text(value: BaseModel | Sequence[BaseModel]) -> str:
    """Exactly the API's shape: one object, or an array of them."""
    plain = (
        value.model_dump(mode="json") if isinstance(value, BaseModel) else [v.model_dump(mode="json") for v in value]
    )
    return json.dumps(plain, indent=2, ensure_ascii=False)


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function of a session as a subcommand, with the connection's options after its own."""

    def register(action: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(action)
        def run(context: typer.Context, **options: Any) -> None:
            with open_session(context.obj, options) as session:
                action(session, **{each.name: _argument(each, options) for each in _parameters(action)})

        _describe(run, action)
        app.command(name)(run)
        return action

    return register


def _argument(parameter: inspect.Parameter, options: Mapping[str, Any]) -> Any:
    """An option's value, or a group with the values of its options. `Any`: typer checked them."""
    if (group := _group(parameter)) is None:
        return options[parameter.name]
    return group(**{name: options[name] for name in inspect.signature(group).parameters})


def _parameters(action: Callable[..., None]) -> list[inspect.Parameter]:
    """All but the first, which is the session."""
    return list(inspect.signature(action).parameters.values())[1:]


def _options(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """The parameter, or those of the group that it is."""
    group = _group(parameter)
    return [parameter] if group is None else list(inspect.signature(group).parameters.values())


def _group(parameter: inspect.Parameter) -> Callable[..., object] | None:
    """The dataclass that makes the parameter's value of several options; None for an option."""
    is_group = is_dataclass(parameter.annotation)
    return parameter.annotation if is_group else None


def _describe(run: Callable[..., None], action: Callable[..., None]) -> None:
    # typer reads a function's signature: it sees the action's own options and the connection's, not **options.
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    own = [option for parameter in _parameters(action) for option in _options(parameter)]
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(name, keyword_only, default=default, annotation=annotation)
        for name, (annotation, default) in _CONNECTION.items()
    ]
    parameters = [context, *(parameter.replace(kind=keyword_only) for parameter in own), *added]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions take it
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


class open_session:  # reads as a function in a `with`
    """A session for the options of a command line, closed at the end of the block."""

    def __init__(self, surroundings: Surroundings, options: Mapping[str, Any]) -> None:
        flags = Flags(url=options["url"], token_file=options["token_file"], ca_file=options["ca"], data=options["data"])
        profile = read_profile(flags, surroundings.environ)
        self._client = CoordinatorClient(
            profile.url, token=profile.token, ca_file=profile.ca_file, transport=surroundings.transport
        )
        self._session = Session(self._client, Output(options["as_json"]), surroundings.now())

    def __enter__(self) -> Session:
        return self._session

    def __exit__(self, *_: object) -> None:
        self._client.close()


def group(help_text: str) -> typer.Typer:
    """A command with subcommands; without one it prints its help."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )


def run(app: typer.Typer, name: str, argv: Sequence[str], surroundings: Surroundings) -> int:
    """Runs a command line and returns its exit code; errors of ours pass through to `shared.cli`."""
    program = typer.main.get_command(app)
    try:
        code = program.main(args=list(argv), prog_name=f"fleetlearn {name}", standalone_mode=False, obj=surroundings)
    except click.UsageError as error:
        error.show(file=sys.stderr)
        return ExitCode.USAGE
    except click.Abort:
        print("Not confirmed; nothing was done.", file=sys.stderr)
        return ExitCode.FAILED
    return code if isinstance(code, int) else ExitCode.OK


def build(shape: type[ShapeT], **values: Any) -> ShapeT:
    """A request from a command line's values. Raises click.UsageError where a value is out of its range."""
    try:
        return shape(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise click.UsageError(f"{where}: {first['msg']}") from error


def confirm(question: str, *, assume_yes: bool) -> None:
    """Asks on standard error; raises click.Abort for no, and where nobody can answer."""
    if not assume_yes:
        typer.confirm(question, abort=True, err=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDTH_PIPED
    return Console(file=stream, width=width, highlight=False)
