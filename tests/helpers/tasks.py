"""The task files, which name functions with a tag that plain YAML does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from drsow_plugin import tasks_path


def _unread(_loader: Any, _suffix: str, node: Any) -> str:
    return str(node.value)


yaml.BaseLoader.add_multi_constructor("!function", _unread)


def task_files() -> list[Path]:
    """Return all task files; ``yaml.BaseLoader`` reads them."""
    return sorted(Path(tasks_path()).glob("*.yaml"))
