"""Preference benchmarks, one module each, and how a task file finds its own.

A benchmark is a module here and its files in ``tasks/``, whose names begin with the module's.
The module has ``load``, which the files name as ``custom_dataset``, and ``METADATA``: the names in
``--metadata`` that it reads.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules


def metadata_names(task: str) -> frozenset[str]:
    """Return the names in ``--metadata`` that say something to a task or group of ours."""
    modules = [module.name for module in iter_modules(__path__) if task.startswith(module.name)]
    names: frozenset[str] = import_module(f"{__name__}.{max(modules, key=len)}").METADATA
    return names
