"""Preference benchmarks, one module each, and how a task file finds its own.

A benchmark is a module here and its files in ``tasks/``, whose names begin with the module's.
The module has ``load``, which the files name as ``custom_dataset``, and ``METADATA``.
"""

from __future__ import annotations

from importlib import import_module


def metadata_names(task: str) -> frozenset[str]:
    """Return the names in ``--metadata`` that say something to a task or group of ours."""
    names: frozenset[str] = import_module(f"{__name__}.{task.split('_')[0]}").METADATA
    return names
