"""Runs a module as on a machine with torch, transformers and pytest, and nothing else.

Usage: python bare.py ALLOWED MODULE ARGUMENT...

Args:
    ALLOWED: Distributions, with commas between, that may be imported with all that they require.
    MODULE: What runs as ``python -m``.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def required(names: list[str]) -> set[str]:
    """Return distributions and all that they require, without extras."""
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for other systems, or parts of a CUDA build
            continue
        found.add(name)
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))
    return found


def hide_all_but(names: list[str]) -> None:
    """Let imports of other installed modules than those of some distributions fail."""
    allowed = {*required(names), "drsow-plugin"}
    for module, owners in metadata.packages_distributions().items():
        if allowed.isdisjoint(map(canonicalize_name, owners)) and module not in sys.modules:
            sys.modules[module] = None  # type: ignore[assignment]


ROOT = Path(__file__).parents[2]
THERE = ["numpy", "pytest", "torch", "transformers"]


def bare(module: str, *arguments: str, also: tuple[str, ...] = ()) -> str:
    """Run a module with all other packages hidden, and return what it prints."""
    folders = map(str, (ROOT, ROOT / "benchmarks", ROOT / "tests"))
    done = subprocess.run(
        [
            *(sys.executable, __file__),
            *(",".join([*THERE, *also]), module, *arguments),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(folders),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they are hidden, but not their entry points
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


if __name__ == "__main__":
    hide_all_but(sys.argv[1].split(","))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
