"""Where this package keeps files of its own."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

UNFINISHED = "writing-"
"""What the names of files and folders begin with that are not whole yet."""

_ABANDONED_AFTER_S = 24 * 3600.0


def cache_folder() -> Path:
    """Return the folder for what can be had again: ``DRSOW_CACHE``, or ``~/.cache/drsow``."""
    configured = os.environ.get("DRSOW_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "drsow"


def open_folder(path: Path) -> Path:
    """Make a folder if it is not there, and remove what killed runs left half written in it.

    Only what nobody has touched for a day: another run may be at work there.
    """
    path.mkdir(parents=True, exist_ok=True)
    for left in path.glob(f"{UNFINISHED}*"):
        try:
            if time.time() - left.stat().st_mtime < _ABANDONED_AFTER_S:
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()
        except FileNotFoundError:
            continue  # another run was faster
    return path
