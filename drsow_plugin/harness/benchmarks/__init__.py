"""Preference benchmarks, one module each, and how a task file finds its own.

A benchmark is a module here and its files in ``tasks/``, whose names begin with the module's.
The module has ``load``, which the files name as ``custom_dataset``, ``METADATA``: the names in
``--metadata`` that it reads, and where it is published: ``HUB_ID`` and ``SPLIT``, or ``URL``.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import NamedTuple


class Published(NamedTuple):
    """Where a benchmark is published; all ``None`` for data of the user's own.

    Attributes:
        hub_id: A data set on the Hub.
        split: Its split.
        url: A page elsewhere.
    """

    hub_id: str | None = None
    split: str | None = None
    url: str | None = None


def metadata_names(task: str) -> frozenset[str]:
    """Return the names in ``--metadata`` that say something to a task or group of ours."""
    names: frozenset[str] = module_of(task).METADATA
    return names


def published(task: str) -> Published | None:
    """Return where the benchmark of a task or group is published; ``None`` if it is not ours."""
    if not _names(task):
        return None
    module = module_of(task)
    return Published(*(getattr(module, name, None) for name in ("HUB_ID", "SPLIT", "URL")))


def module_of(task: str) -> ModuleType:
    """Return the module of a task or group of ours."""
    return import_module(f"{__name__}.{max(_names(task), key=len)}")


def _names(task: str) -> list[str]:
    names = (module.name for module in iter_modules(__path__))
    return [name for name in names if task == name or task.startswith(f"{name}_")]
