"""The README is true: its Python runs and prints what it says, and it names every option."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path

import datasets
import pytest
import yaml
from click.testing import CliRunner

from drsow_plugin import tasks_path
from drsow_plugin.annotate.options import LABEL_OPTIONS
from drsow_plugin.cli import main
from drsow_plugin.config.model import SIDE_OPTIONS
from drsow_plugin.config.pair import PairOptions
from drsow_plugin.models.demo import demo_model

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


BLOCKS = [
    re.sub(r"(?m)^    ", "", block)
    for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", README, re.MULTILINE)
]


def block(start: str) -> int:
    """Return the number of the only block that has a line."""
    (found,) = [number for number, text in enumerate(BLOCKS) if start in text]
    return found


def printed(code: str) -> str:
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        exec(code, {})
    return stdout.getvalue().strip()


def test_the_python_example_prints_what_the_readme_says() -> None:
    code = block("from drsow_plugin import DrSoW")
    assert printed(BLOCKS[code]) == BLOCKS[code + 1].strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with what the README's commands read, and an empty cache."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / demo_model().name).symlink_to(demo_model())
    monkeypatch.setenv("DRSOW_CACHE", str(cache))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_labelling_examples_run(checkout: Path) -> None:
    python = BLOCKS[block("import Annotator")] + BLOCKS[block("annotate.run(data)")]
    out = printed(python)
    assert "11 is a prime number." in out and "rows              6" in out
    commands = BLOCKS[block("drsow annotate --config labelled")].strip().splitlines()
    assert len(commands) == 2
    for command in commands:
        name, *arguments = shlex.split(command, comments=True)
        assert name == "drsow"
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        figures = re.findall(r"(?m)^  .*", out)
        assert figures == re.findall(r"(?m)^  .*", result.stdout)


def test_the_routed_example_runs(checkout: Path) -> None:
    commands = BLOCKS[block("--router keyword \\")].replace("\\\n", " ").strip().splitlines()
    name, *arguments = shlex.split(commands[1])
    assert name == "drsow" and arguments[0] == "annotate"
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    rows = datasets.load_dataset("routed", cache_dir=str(checkout / "hf"))["train"]
    assert set(rows["drsow_domain"]) <= {"safety", "reasoning", "chat"}
    (tried,) = re.findall(r"`echo '(.*)' \| drsow route (.*?)`", README)
    result = CliRunner().invoke(main, ["route", *shlex.split(tried[1])], input=tried[0])
    assert result.exit_code == 0 and "safety" in result.output


def test_every_option_is_named() -> None:
    shared = [
        name for name in PairOptions.__annotations__ if not name.startswith(("strong_", "weak_"))
    ]
    shared = [name for name in shared if name.removeprefix("router_") not in SIDE_OPTIONS]
    for name in (*SIDE_OPTIONS, *shared, *LABEL_OPTIONS):
        assert f"`{name}`" in README


def test_every_task_is_named() -> None:
    for file in Path(tasks_path()).glob("*.yaml"):
        text = re.sub(r"!function", "", file.read_text(encoding="utf-8"))
        config = yaml.safe_load(text)
        assert (
            f"`{config.get('task') if isinstance(config.get('task'), str) else config['group']}`"
            in README
        )
