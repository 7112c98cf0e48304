"""Where this package keeps files of its own."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for what can be had again: ``DRSOW_CACHE``, or ``~/.cache/drsow``."""
    configured = os.environ.get("DRSOW_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "drsow"
