"""README and docs/ are true: what they show runs and prints what they say, and it exists."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import datasets
import pytest
import yaml
from helpers import tiny_gguf
from helpers.hub_server import HubServer
from helpers.pages import OUTPUT, Block, Reader, blocks, commands

from drsow_plugin import Annotator, Domain, Router, RouterContext, RouterInput, tasks_path
from drsow_plugin.annotate.options import LABEL_OPTIONS
from drsow_plugin.cli import main
from drsow_plugin.config.keywords import PairOptions
from drsow_plugin.config.model import SIDE_OPTIONS
from drsow_plugin.harness.benchmarks.preference import METADATA
from drsow_plugin.hashing import file_sha256
from drsow_plugin.models import demo
from drsow_plugin.publishing.publish import PublishOptions
from drsow_plugin.routing.hookspecs import HOOKS

ROOT = Path(__file__).parents[1]
PAGES = {page.name: page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
TEXT = {name: page.read_text(encoding="utf-8") for name, page in PAGES.items()}
NOT_RUN = {
    "make demo": "minutes; .ci/run runs it",
    "make test": "runs this",
    "pip install .": "scripts/check_wheel.sh and test_plugin_package.py install what they build",
    "echo 'Is this contract valid?' | drsow route --router legal": "test_plugin_package.py does",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with what a checkout has for the pages to read, and an empty cache."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("DRSOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny_demo(folder: Path, own_tasks: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a tiny random model in the place of the demo model; lm-eval reads our tasks only."""
    file = tiny_gguf.save(folder / "cache" / demo.FILE_NAME, context=8192)
    monkeypatch.setattr(demo, "SHA256", file_sha256(file))
    return folder


@pytest.fixture
def demo_file() -> Path:
    return demo.demo_model()


@pytest.fixture
def real_demo(demo_file: Path, folder: Path) -> Path:
    """Put the demo model into the empty cache, with the copies of it that load fast."""
    (demo_file.parent / "converted").mkdir(exist_ok=True)
    for name in (demo_file.name, "converted"):
        (folder / "cache" / name).symlink_to(demo_file.parent / name)
    return folder


def followed(page: Path) -> Iterator[tuple[Block, str]]:
    """Do what a page says; yield its blocks with what they print.

    What is printed has to be as the page shows it; the README shows what the real demo prints.
    """
    reader = Reader(NOT_RUN)
    block, printed = Block("", "", ""), ""
    for after in blocks(page):
        if after.language in OUTPUT:
            assert after.text in printed or page.name == "README.md"
        elif after.language != "toml":
            block, printed = after, reader.follow(after)
            yield block, printed


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "evaluating.md" else [])
        for name in sorted(set(PAGES) - {"plugins.md", "publishing.md"})
    ],
)
def test_everything_that_a_page_shows_runs(name: str, tiny_demo: Path) -> None:
    assert all(block.text for block, _ in followed(PAGES[name]))


def test_the_page_on_plugins_routes_labels_and_evaluates(tiny_demo: Path) -> None:
    printed = {block.text: output for block, output in followed(PAGES["plugins.md"])}
    (labelled,) = [output for text, output in printed.items() if "drsow annotate" in text]
    assert "domain tenancy:" in labelled and "domain (none):" in labelled
    (file,) = Path("out").glob("**/results_*.json")
    found = json.loads(file.read_text())["config"]["drsow"]["domains"]["domains"]
    assert {name: of["pairs"] for name, of in found.items()} == {"tenancy": 1, "(none)": 1}


def test_the_page_on_publishing_publishes(tiny_demo: Path, server: HubServer) -> None:
    assert list(followed(PAGES["publishing.md"]))
    assert "drsow:begin" in Path("card/README.md").read_text()
    assert "README.md" in server.repositories["your-name/your-data"].files()


@pytest.mark.slow
def test_the_demo_prints_the_figures_that_the_readme_shows(real_demo: Path) -> None:
    found = blocks(PAGES["README.md"])
    shown = [(b, after) for b, after in pairwise(found) if after.language in OUTPUT]
    assert [after.text for block, after in shown if after.text not in Reader().follow(block)] == []
    assert len(shown) == 2


def test_what_is_not_run_is_there_and_the_commands_named_exist() -> None:
    shown = {c for page in PAGES.values() for b in blocks(page) for c in commands(b.text)}
    assert set(NOT_RUN) <= shown
    for text in TEXT.values():
        for name in re.findall(r"`drsow (\w+)", text):
            assert name in main.commands


def test_every_link_leads_somewhere() -> None:
    for name, text in TEXT.items():
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
            file = PAGES[name].parent / target if target else PAGES[name]
            assert file.exists(), f"{name}: {target}"
            linked = "" if file.is_dir() else file.read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.*)$", linked, re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in ("", *anchors), f"{name}: {target}#{anchor}"


def shared_options() -> list[str]:
    """Return the options of a pair that are not those of one of its models."""
    names = [n for n in PairOptions.__annotations__ if not n.startswith(("strong_", "weak_"))]
    return [name for name in names if name.removeprefix("router_") not in SIDE_OPTIONS]


def test_every_option_is_named() -> None:
    text = "\n".join(TEXT.values())
    for name in (*SIDE_OPTIONS, *shared_options(), *LABEL_OPTIONS):
        assert f"`{name}`" in text


def test_every_option_that_is_named_exists() -> None:
    known = {"strong", "weak", *PairOptions.__annotations__, *LABEL_OPTIONS, *SIDE_OPTIONS}
    known |= {*PublishOptions.__annotations__, *inspect.signature(Annotator.run).parameters}
    known |= METADATA
    known |= {field.name for of in (Router, Domain) for field in fields(of)}
    for page, text in TEXT.items():
        for name in re.findall(r"`([a-z_]+)=", text):
            assert name in known, f"{page}: {name}="


def test_every_task_is_named() -> None:
    for file in Path(tasks_path()).glob("*.yaml"):
        config = yaml.safe_load(re.sub(r"!function", "", file.read_text(encoding="utf-8")))
        task = config.get("task")
        assert f"`{task if isinstance(task, str) else config['group']}`" in TEXT["evaluating.md"]


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented_with_its_arguments(name: str) -> None:
    arguments = [n for n in inspect.signature(HOOKS[name]).parameters if n != "self"]
    assert f"### {name}({', '.join(arguments)})\n" in TEXT["plugins.md"]


def test_every_field_that_plugins_see_is_documented() -> None:
    for entry in fields(Domain):
        assert f"| `{entry.name}` |" in TEXT["plugins.md"]
    for name in (*(entry.name for entry in fields(RouterInput)), "text"):
        assert f"| `prompt.{name}` |" in TEXT["plugins.md"]
    for entry in fields(RouterContext):
        assert f"| `context.{entry.name}" in TEXT["plugins.md"]


def test_the_example_package_is_as_the_page_says() -> None:
    package = ROOT / "examples" / "plugin-legal" / "pyproject.toml"
    (shown,) = [block.text for block in blocks(PAGES["plugins.md"]) if block.language == "toml"]
    assert shown.strip() in package.read_text()
