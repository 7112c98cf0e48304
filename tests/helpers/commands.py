"""The command, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from drsow_plugin.cli import main


def drsow(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


def wrong(*arguments: object) -> str:
    """Return the message of a command that has to fail without a traceback."""
    result = drsow(*arguments)
    assert result.exit_code == 1 and "\nError: " in f"\n{result.stderr}", result.output
    return " ".join(result.stderr.split())


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
