"""Flower apps as folders: who they are, what they hold, and which are installed on this machine.

A folder with a `pyproject.toml` as `flwr new` makes it. Its identity is its name, its version and the digest of its
files, so that coordinator and devices can be sure to run two halves of one app without sending each other code. Light:
neither Flower nor the app's own modules are imported.
"""

import hashlib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

import structlog

from shared.errors import FleetlearnError
from shared.ids import Digest

ConfigValue = bool | int | float | str
FileStamp = tuple[str, int, int, int]
"""A file's path, size, and when it and its entry were last changed, in ns."""
RunConfig = dict[str, ConfigValue]
"""As apps read it: nested tables are flat, `train.lr`."""
FILES_MAX = 1000
BYTES_MAX = 10 * 1024 * 1024
"""Of an app's files together; Flower's own limit of a bundle."""
DIGEST_CHARS = 12
"""Of the digest, in what people read."""
_TASK_PREFIX = "flower:"
_BUILT = ("__pycache__", "build", "dist")
_log = structlog.get_logger()


class InvalidFlowerAppError(FleetlearnError):
    """A folder that is no Flower app, or a setting that the app does not have."""

    code = "invalid_flower_app"


class FlowerAppNotInstalledError(FleetlearnError):
    """An app that is not installed on this machine, or with other content."""

    code = "flower_app_not_installed"


@dataclass(frozen=True)
class FlowerApp:
    """One app, as its folder says."""

    folder: Path
    name: str
    """Publisher and project, `flwrlabs/quickstart`."""
    version: str
    digest: Digest
    """Of all its files."""
    serverapp: str
    """Where the ServerApp is, `quickstart.server_app:app`."""
    clientapp: str
    config: RunConfig = field(default_factory=dict)
    """What a run's configuration has where the run says nothing."""

    @property
    def task(self) -> str:
        """What campaigns and devices call it, among tasks."""
        return f"{_TASK_PREFIX}{self.name}"

    @property
    def content(self) -> str:
        """Its version among tasks: equal only where every file is."""
        return content_of(self.version, self.digest)


def content_of(version: str, digest: str) -> str:
    """A version with the beginning of the digest, for people and for equality with what a device reports."""
    return f"{version}+{digest[:DIGEST_CHARS]}"


def read_app(folder: Path) -> FlowerApp:
    """The app in this folder. Raises InvalidFlowerAppError."""
    project = _project(folder)
    try:
        settings = project["tool"]["flwr"]["app"]
        return FlowerApp(
            folder=folder,
            name=f"{settings['publisher']}/{project['project']['name']}",
            version=str(project["project"]["version"]),
            digest=_digest(folder),
            serverapp=str(settings["components"]["serverapp"]),
            clientapp=str(settings["components"]["clientapp"]),
            config=_flat(settings.get("config", {})),
        )
    except (OSError, UnicodeEncodeError) as error:  # being copied or removed just now, or another user's
        raise InvalidFlowerAppError(
            f"Expected files that can be read, with names in UTF-8, in {folder}: {error}"
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidFlowerAppError(
            f"Expected project.name, project.version and [tool.flwr.app] with publisher and components in "
            f"{folder / 'pyproject.toml'}, {error} is missing",
            hint="`flwr new` makes a folder that has them all.",
        ) from error


def installed_apps(folder: Path | None) -> list[FlowerApp]:
    """The apps in the folders below this one, sorted by folder; what is no app is logged and left out."""
    found = []
    for each in _app_folders(folder):
        try:
            found.append(read_app(each))
        except InvalidFlowerAppError as error:
            _log.warning("flower_app_not_usable", folder=str(each), reason=error.message)
    return found


def stamps_of(folder: Path | None) -> list[FileStamp]:
    """Of every file of the apps in the folders below this one: equal as long as `installed_apps` finds the same."""
    stamps = []
    for path in (path for each in _app_folders(folder) for path in _files(each)):
        try:
            status = path.stat()
        except OSError:
            continue  # removed since it was listed
        stamps.append((str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return stamps


def find_app(folder: Path | None, *, name: str, version: str, digest: str) -> FlowerApp:
    """The installed app with just this content. Raises FlowerAppNotInstalledError, saying what is installed instead."""
    apps = [app for app in installed_apps(folder) if app.name == name]
    for app in apps:
        if (app.version, app.digest) == (version, digest):
            return app
    others = ", ".join(app.content for app in apps) or "none"
    raise FlowerAppNotInstalledError(
        f"Expected Flower app {name} {content_of(version, digest)} to be installed here, got {others}",
        hint="Copy the app's folder, every file of it the same, into the folder of Flower apps of this machine.",
    )


def run_config(app: FlowerApp, given: Mapping[str, ConfigValue]) -> RunConfig:
    """The app's configuration with what the run says otherwise; text is read as the type of the app's own value.

    Raises InvalidFlowerAppError for a key that the app does not have, or a value of another type.
    """
    if unknown := sorted(given.keys() - app.config.keys()):
        known = ", ".join(sorted(app.config)) or "none"
        raise InvalidFlowerAppError(
            f"Expected a key of the app's configuration ({known}), got {unknown[0]!r}",
            hint="[tool.flwr.app.config] in the app's pyproject.toml has every key with its default.",
        )
    return app.config | {key: _typed(key, value, app.config[key]) for key, value in given.items()}


def _app_folders(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    # Path.glob raises where the folder goes away meanwhile.
    found = glob("*/pyproject.toml", root_dir=folder, include_hidden=True)  # noqa: PTH207
    return sorted((folder / each).parent for each in found)


def _typed(key: str, value: ConfigValue, default: ConfigValue) -> ConfigValue:
    text, kind = str(value), type(default)
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        raise InvalidFlowerAppError(f"Expected {key!r} as {kind.__name__}, got {text[:80]!r}") from None


def _project(folder: Path) -> dict[str, Any]:  # Any: TOML
    path = folder / "pyproject.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidFlowerAppError(
            f"Expected a Flower app, a folder with a pyproject.toml, got {path}: {error}"
        ) from error


def _flat(table: Mapping[str, Any], prefix: str = "") -> RunConfig:  # Any: TOML
    config: RunConfig = {}
    for key, value in table.items():
        if isinstance(value, dict):
            config |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            config[f"{prefix}{key}"] = value
        else:
            raise InvalidFlowerAppError(
                f"Expected a bool, a number or text for {prefix}{key} in the app's configuration, "
                f"got {type(value).__name__}"
            )
    return config


def _digest(folder: Path) -> Digest:
    """SHA-256 over the names and digests of the app's files, sorted: SHA-256 HEX, two spaces, path, newline, each."""
    lines, size = [], 0
    for path in _files(folder):
        content = path.read_bytes()
        size += len(content)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {path.relative_to(folder).as_posix()}\n")
        if len(lines) > FILES_MAX or size > BYTES_MAX:
            raise InvalidFlowerAppError(
                f"Expected at most {FILES_MAX} files and {BYTES_MAX} bytes in {folder}, got more",
                hint="Data does not belong into an app: a device has its own.",
            )
    return Digest(hashlib.sha256("".join(lines).encode()).hexdigest())


def _files(folder: Path) -> Iterator[Path]:
    """What belongs to the app: not what is hidden, and not what tools build of it."""
    found = list[Path]()
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if _is_own(name)]
        found += [Path(parent, name) for name in names if _is_own(name)]
    # Path.is_file raises where it is not allowed to look.
    yield from (path for path in sorted(found, key=Path.as_posix) if os.path.isfile(path))  # noqa: PTH113


def _is_own(name: str) -> bool:
    return not (name.startswith(".") or name in _BUILT or name.endswith(".egg-info"))
