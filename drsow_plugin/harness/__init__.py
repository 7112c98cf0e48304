"""The plugin for lm-evaluation-harness: the reward model and the preference tasks."""

from __future__ import annotations

from importlib import resources


def tasks_path() -> str:
    """Return the folder of the lm-eval task files, for lm-eval's ``include_path``."""
    return str(resources.files("drsow_plugin.tasks"))
