"""Modules of packages that the tests do not install, because of what else they would bring."""

from __future__ import annotations

import importlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from filelock import FileLock

from drsow_plugin.cache import cache_folder


def unpacked(requirement: str, *options: str) -> Path:
    """Return the folder with the contents of a wheel; fetched once, and without what it needs.

    Args:
        requirement: Such as ``package==1.0``.
        *options: Further ones of ``pip download``.
    """
    folder = cache_folder() / "test-wheels" / requirement
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q"]
            wheels = folder.with_suffix(".wheels")
            subprocess.run(
                [*pip, "--no-deps", "--only-binary=:all:", *options, "-d", wheels, requirement],
                check=True,
            )
            (wheel,) = wheels.glob("*.whl")
            whole = folder.with_suffix(".unpacked")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(whole)
            whole.rename(folder)
    (library,) = [*folder.glob("*.data/purelib")] or [folder]
    return library


@contextmanager
def module_of(library: Path, name: str, **names: Mapping[str, object]) -> Iterator[ModuleType]:
    """Import a module of an unpacked wheel, but nothing of the packages that it stands in.

    Args:
        library: What :func:`unpacked` returned.
        name: The module's full name; other modules that it imports have to be there.
        **names: What it imports from those packages themselves, by package.
    """
    parents = [name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1)]
    before = set(sys.modules)
    for parent in parents:
        package = ModuleType(parent)
        vars(package).update(names.get(parent, {}))
        package.__path__ = [str(library / parent.replace(".", "/"))]
        sys.modules[parent] = package
    try:
        yield importlib.import_module(name)
    finally:
        for added in set(sys.modules) - before:
            if added.partition(".")[0] == name.partition(".")[0]:
                del sys.modules[added]
