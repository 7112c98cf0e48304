"""The README is true: its Python runs and prints what it says, and it names every option."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import yaml

from drsow_plugin import tasks_path
from drsow_plugin.config import SIDE_OPTIONS, PairOptions

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_python_example_prints_what_the_readme_says() -> None:
    code, printed = re.findall(r"(?:^    .*\n|^\n(?=    ))+", README, re.MULTILINE)[-2:]
    assert "from drsow_plugin import DrSoW" in code
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        exec(re.sub(r"(?m)^    ", "", code), {})
    assert stdout.getvalue().strip() == re.sub(r"(?m)^    ", "", printed).strip()


def test_every_option_is_named() -> None:
    shared = [
        name for name in PairOptions.__annotations__ if not name.startswith(("strong_", "weak_"))
    ]
    for name in (*SIDE_OPTIONS, *shared):
        assert f"`{name}`" in README


def test_every_task_is_named() -> None:
    for file in Path(tasks_path()).glob("*.yaml"):
        text = re.sub(r"!function", "", file.read_text(encoding="utf-8"))
        config = yaml.safe_load(text)
        assert (
            f"`{config.get('task') if isinstance(config.get('task'), str) else config['group']}`"
            in README
        )
