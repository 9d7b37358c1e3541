"""Which coordinator to talk to, and as whom: from flags, a data directory, or the environment.

Flags win, then the data directory that was named, then the environment, then the default directory
(FLEETLEARN_DATA_DIR, or `./fleetlearn-data`). The default directory counts only where nothing else names a coordinator:
its token never goes to another one's URL by accident. There is no flag for the token itself, because other users of a
machine can read command lines.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fleet.errors import ProfileError

DATA_DEFAULT = Path("fleetlearn-data")
TOKEN_FILE = "operator.token"  # noqa: S105  # a file's name
CA_FILE = Path("pki") / "ca.pem"
SETTINGS_FILE = "settings.toml"
ADDRESS_DEFAULT = "127.0.0.1"
PORT_DEFAULT = 8444


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What the command line said; None where it said nothing."""

    url: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    data: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A coordinator and an operator's access to it."""

    url: str
    token: str = field(repr=False)
    ca_file: Path | None = None


@dataclass(frozen=True)
class _Source:
    """A partial profile."""

    url: str | None = None
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None


def read_profile(flags: Flags, environ: Mapping[str, str] | None = None) -> Profile:
    """The profile to use. Raises ProfileError with what is missing and how to give it."""
    sources = _sources(flags, os.environ if environ is None else environ)
    url = next((source.url for source in sources if source.url), None)
    token = next((source.token for source in sources if source.token), None)
    if url is None:
        raise ProfileError(
            "No coordinator is named, and there is none on this machine in ./fleetlearn-data",
            hint="Start one with `fleetlearn up`, or name one: --data DIR, --url URL, or FLEETLEARN_URL.",
        )
    if token is None:
        raise ProfileError(
            f"Expected an operator's token for {url}, got none",
            hint="Give --data DIR, --token-file FILE, FLEETLEARN_TOKEN_FILE or FLEETLEARN_TOKEN.",
        )
    ca_file = next((source.ca_file for source in sources if source.ca_file), None)
    return Profile(url=url.rstrip("/"), token=token, ca_file=ca_file)


def _sources(flags: Flags, environ: Mapping[str, str]) -> list[_Source]:
    sources = [_from_flags(flags)]
    if flags.data is not None:
        sources.append(_from_data(flags.data))
    sources.append(_from_environment(environ))
    data_default = Path(environ.get("FLEETLEARN_DATA_DIR") or DATA_DEFAULT)
    if not any(source.url for source in sources) and (data_default / TOKEN_FILE).exists():
        sources.append(_from_data(data_default))
    return sources


def _from_flags(flags: Flags) -> _Source:
    token = _read_token(flags.token_file) if flags.token_file else None
    return _Source(flags.url, token, flags.ca_file)


def _from_environment(environ: Mapping[str, str]) -> _Source:
    token = environ.get("FLEETLEARN_TOKEN") or None
    if token is None and (token_file := environ.get("FLEETLEARN_TOKEN_FILE")):
        token = _read_token(Path(token_file))
    ca_file = environ.get("FLEETLEARN_CA")
    return _Source(environ.get("FLEETLEARN_URL") or None, token, Path(ca_file) if ca_file else None)


def _from_data(data: Path) -> _Source:
    ca_file = data / CA_FILE
    url = _url_of(data / SETTINGS_FILE)
    return _Source(url, _read_token(data / TOKEN_FILE), ca_file if ca_file.exists() else None)


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(
            f"Expected an operator's token in {path}, could not read it: {_reason(error)}",
            hint="`fleetlearn up` writes it into its data directory, readable by its owner only.",
        ) from error
    if not token or not token.isascii() or any(letter.isspace() for letter in token):
        raise ProfileError(f"Expected an operator's token in {path}, got something else")
    return token


def _url_of(settings_file: Path) -> str:
    """Where the coordinator of these settings listens; a missing file means that all of them are the defaults."""
    try:
        settings = tomllib.loads(settings_file.read_text(encoding="utf-8")) if settings_file.exists() else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProfileError(
            f"Expected the settings of a coordinator in {settings_file}, could not read them: {_reason(error)}",
            hint="Give the directory that `fleetlearn up` uses with --data.",
        ) from error
    address = str(settings.get("address", ADDRESS_DEFAULT))
    if address in ("0.0.0.0", "::"):  # noqa: S104  # we dial, we do not bind
        return str(settings.get("public_url") or f"https://{ADDRESS_DEFAULT}:{settings.get('port', PORT_DEFAULT)}")
    host = f"[{address}]" if ":" in address else address
    return f"https://{host}:{settings.get('port', PORT_DEFAULT)}"


def _reason(error: Exception) -> str:
    return error.strerror or "unreadable" if isinstance(error, OSError) else str(error)
