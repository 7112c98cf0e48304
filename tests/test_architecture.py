"""docs/architecture.md names the wings that are there, in the order that the contracts hold."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import drsow_plugin

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest brings

ROOT = Path(__file__).parents[1]
PACKAGE = Path(drsow_plugin.__file__).parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def contracts(kind: str) -> list[dict[str, Any]]:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    return [contract for contract in linter["contracts"] if contract["type"] == kind]


def table(column: str) -> list[list[list[str]]]:
    """Return the code in each cell of the table whose first column has a name."""
    (body,) = re.findall(rf"^\| {column} \|.*\n\| --- .*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    cells = [line.strip("|\n").split(" | ") for line in body.splitlines()]
    return [[re.findall(r"`([^`]+)`", cell) for cell in row] for row in cells]


def test_the_wings_are_those_of_the_contract_in_its_order() -> None:
    (contract,) = contracts("layers")
    layers = [re.findall(r"drsow_plugin\.(\w+)", layer) for layer in contract["layers"]]
    assert [row[0] for row in table("wing")] == layers


def test_the_wings_are_those_of_the_tree() -> None:
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    wings = [name for row in table("wing") for name in row[0]]
    assert sorted(wings) == sorted(modules - {"__init__", "__pycache__"})


def test_a_library_is_imported_where_the_page_says_and_the_contracts_hold_it() -> None:
    named = {library: wings for (library,), wings in table("library")}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    held = {
        library: {f"drsow_plugin.{name}" for name in packages} - {*contract["source_modules"]}
        for contract in contracts("forbidden")
        for library in contract["forbidden_modules"]
    }
    assert {key: {f"drsow_plugin.{n}" for n in names} for key, names in named.items()} == held


def test_the_places_that_are_named_exist() -> None:
    for place in re.findall(r"`([\w/]+(?:/|\.py))`", PAGE):
        assert any((root / place).exists() for root in (PACKAGE, ROOT)), place
