"""`fleetlearn keys`: the keys that sign releases; they stay on this machine, the coordinator is not asked."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.common import JsonOption, group

app = group("Make and list the keys that sign releases.")


@app.command("make")
def make(
    file: Annotated[Path, typer.Argument(help="Where to write it; a file that is there stays.", metavar="FILE")],
    as_json: JsonOption = False,
) -> None:
    """Makes an Ed25519 signing key, readable by its owner only."""
    from fleet.signing import make_key  # deferred: TUF's libraries (0.2 s)

    key_id = make_key(file)
    print(json.dumps({"file": str(file), "key_id": key_id}) if as_json else f"{file}  {key_id}")


@app.command("list")
def list_keys(
    folder: Annotated[Path, typer.Argument(help="Folder with .pem keys.", metavar="FOLDER")],
    as_json: JsonOption = False,
) -> None:
    """Names and key ids of the keys in a folder; the keys themselves are never printed."""
    from fleet.signing import key_ids  # deferred: TUF's libraries (0.2 s)

    found = dict(key_ids(folder))
    if as_json:
        print(json.dumps(found))
        return
    for name, key_id in found.items():
        print(f"{name:<16} {key_id}")
