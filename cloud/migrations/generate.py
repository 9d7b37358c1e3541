"""`python -m cloud.migrations.generate "Message"`: writes the next migration from what the tables say now.

Read it before committing it: Alembic sees columns and indexes, not data, triggers or intentions.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory

from cloud.db import open_engine
from cloud.migrations.upgrade import alembic_config, upgrade_database


def main(argv: list[str]) -> int:
    """Writes `versions/NNNN_message.py` for the difference between the migrations and the tables."""
    if len(argv) != 1:
        print('usage: python -m cloud.migrations.generate "Message"', file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/before.sqlite"
        upgrade_database(url)
        engine = open_engine(url)
        with engine.begin() as connection:
            config = alembic_config(connection)
            number = len(list(ScriptDirectory.from_config(config).walk_revisions())) + 1
            written = command.revision(config, message=argv[0], autogenerate=True, rev_id=f"{number:04}")
        engine.dispose()
    path = Path(written.path)  # type: ignore[union-attr]  # one message makes one script
    subprocess.run([sys.executable, "-m", "ruff", "check", "--quiet", "--fix", path], check=False)
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", path], check=False)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
