"""The folder of a training: what it holds, and whether this training may go on in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drsow_plugin.errors import ConfigError, MissingExtraError

RECORD = "tune.json"
CHECKPOINTS = "checkpoints"


def require_trl() -> None:
    """Check that the libraries of the extra ``train`` are there.

    Raises:
        MissingExtraError: They are not.
    """
    try:
        import peft
        import trl
    except ImportError as error:
        raise MissingExtraError("Tuning a policy", "train") from error
    del peft, trl


def check_folder(folder: Path, begun: Mapping[str, Any]) -> None:
    """Check that nothing is there, or this very training, begun and not ended.

    Raises:
        ConfigError: Something else is.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = {}
    if record.get("begun") != json.loads(json.dumps(begun)):
        raise ConfigError(
            f"{folder} holds something else than this training, begun. Give a new folder."
        )
    if "done" in record:
        raise ConfigError(f"{folder} holds this training, ended already. Give a new folder.")
