"""The public face: what importing costs, what is exported, what a bare interpreter pays."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import drsow_plugin

HEAVY = {"torch", "transformers", "datasets", "lm_eval", "numpy", "pandas", "jinja2"}


def modules_after(code: str) -> set[str]:
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(result.stdout.split())


@pytest.mark.parametrize("name", ["drsow_plugin", "drsow_plugin.cli", "drsow_plugin._autoload"])
def test_importing_brings_nothing_heavy(name: str) -> None:
    assert not modules_after(f"import {name}") & HEAVY


def test_the_autoload_module_brings_next_to_nothing() -> None:
    root = str(Path(drsow_plugin.__file__).parents[1])
    code = (
        f"import sys; sys.path.insert(0, {root!r}); before = set(sys.modules)\n"
        "import drsow_plugin._autoload\n"
        "print(*(set(sys.modules) - before))"
    )
    # Without site (-S), so that nothing has been imported by another package's .pth file.
    command = [sys.executable, "-S", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    added = set(result.stdout.split()) - {"__future__"}
    assert added == {"drsow_plugin", "drsow_plugin._autoload"}


def test_every_public_name_can_be_had() -> None:
    for name in drsow_plugin.__all__:
        assert getattr(drsow_plugin, name) is not None
    assert dir(drsow_plugin) == drsow_plugin.__all__ == sorted(drsow_plugin.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        drsow_plugin.nothing  # noqa: B018


def test_the_entry_points_load() -> None:
    points = list(metadata.distribution("drsow-plugin").entry_points)
    assert {p.group for p in points} == {
        "console_scripts",
        "lm_eval.models",
        "lm_eval.metrics",
        "lm_eval.aggregations",
        "drsow",
    }
    for point in points:
        assert callable(point.load()) or point.group == "drsow"


def test_what_is_imported_is_declared() -> None:
    """Every package that the code imports is a dependency, or an extra that is named."""
    imported: set[str] = set()
    for file in Path(drsow_plugin.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    outside = imported - set(sys.stdlib_module_names) - {"drsow_plugin"}
    outside = {{"yaml": "pyyaml"}.get(name, name) for name in outside}
    requires = metadata.requires("drsow-plugin") or []
    declared = {re.split(r"[\s<>=;\[]", line, maxsplit=1)[0].replace("-", "_") for line in requires}
    # torch's builds for a GPU bring Triton; without it plain torch does the same work. vLLM goes
    # with a GPU's driver: engine=vllm says how to install it, where it is not.
    assert outside - {"triton", "vllm"} <= declared
