"""The page for plugin authors is true: every hook is on it, and what it shows runs."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from drsow_plugin import Domain, RouterContext, RouterInput
from drsow_plugin.cli import main
from drsow_plugin.routing.hookspecs import HOOKS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def block(language: str, start: str) -> str:
    """Return the only code block in a language that has a line."""
    (found,) = [text for kind, text in BLOCKS if kind == language and start in text]
    return found


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented_with_its_arguments(name: str) -> None:
    arguments = [n for n in inspect.signature(HOOKS[name]).parameters if n != "self"]
    assert f"### {name}({', '.join(arguments)})\n" in PAGE


def test_every_field_is_documented() -> None:
    for entry in fields(Domain):
        assert f"| `{entry.name}` |" in PAGE
    for name in (*(entry.name for entry in fields(RouterInput)), "text"):
        assert f"| `prompt.{name}` |" in PAGE
    for entry in fields(RouterContext):
        assert f"| `context.{entry.name}" in PAGE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("my_router.py").write_text(block("python", "def route"))
    return tmp_path


def test_the_first_router_routes_as_shown(folder: Path) -> None:
    echo, command = block("bash", "--router tenancy --plugin my_router.py --json").split("|")
    arguments = shlex.split(command)
    assert arguments.pop(0) == "drsow"
    result = CliRunner().invoke(main, arguments, input=shlex.split(echo)[1])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads(block("json", "domain"))


def test_the_commands_shown_label_and_evaluate(folder: Path) -> None:
    lines = block("bash", "cat > rows.jsonl").splitlines()
    Path("rows.jsonl").write_text("\n".join(lines[1:3]) + "\n")
    name, *arguments = shlex.split("\n".join(lines[4:]).replace("\\\n", " "))
    assert name == "drsow"
    result = CliRunner().invoke(main, [*arguments, "--cache-dir", "cache"])
    assert result.exit_code == 0, result.output
    assert "domain tenancy:" in result.stdout and "domain (none):" in result.stdout
    command = shlex.split(block("bash", "drsow eval").replace("\\\n", " "))
    command[:1] = [sys.executable, "-m", "drsow_plugin.cli"]
    subprocess.run(command, check=True, capture_output=True)
    (file,) = Path("out").glob("**/results_*.json")
    found = json.loads(file.read_text())["config"]["drsow"]["domains"]["domains"]
    assert {name: of["pairs"] for name, of in found.items()} == {"tenancy": 1, "(none)": 1}


def test_the_python_shown_runs(folder: Path) -> None:
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        exec(block("python", "drsow.score"), {})
    assert stdout.getvalue().strip() == "tenancy"


def test_the_example_package_is_as_the_page_says() -> None:
    package = ROOT / "examples" / "plugin-legal"
    assert block("toml", "entry-points").strip() in (package / "pyproject.toml").read_text()
