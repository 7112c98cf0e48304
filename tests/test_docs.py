"""README and docs/ are true: what they show runs and prints what they say, and it exists."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import datasets
import pytest
import yaml
from helpers import tiny_gguf
from helpers.hub_server import HubServer
from helpers.model_server import ModelServer
from helpers.pages import OUTPUT, Block, Reader, blocks, commands
from helpers.served import saved

from drsow_plugin import Annotator, Domain, Router, RouterContext, RouterInput, tasks_path
from drsow_plugin.annotate.drivers import DriverOptions
from drsow_plugin.annotate.options import LABEL_OPTIONS
from drsow_plugin.cli import main
from drsow_plugin.config.keywords import PairOptions
from drsow_plugin.config.model import SIDE_OPTIONS
from drsow_plugin.harness.benchmarks import best_of_n, preference
from drsow_plugin.hashing import file_sha256
from drsow_plugin.models import demo
from drsow_plugin.publishing.publish import PublishOptions
from drsow_plugin.report.options import PAGE_OPTIONS
from drsow_plugin.routing.hookspecs import HOOKS

ROOT = Path(__file__).parents[1]
PAGES = {page.name: page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
TEXT = {name: page.read_text(encoding="utf-8") for name, page in PAGES.items()}
NOT_RUN = {
    "drsow pipeline recipes/mini.yaml": "an hour; test_pipeline.py does it with a tiny model",
    "drsow tune labelled tuned --policy org/model --method simpo": "test_tune.py trains",
    "drsow tune labelled adapter --policy org/model --method dpo --lora-rank 16": "likewise",
    "drsow grpo prompts.jsonl trained --policy org/model --strong org/model-dpo "
    "--weak org/model-sft": "test_online.py does",
    "drsow tune labelled reward --policy org/model --method reward": "test_reward_method.py does",
    "DRSOW_REWARD=pair.yaml trl grpo --reward_funcs drsow_plugin.rewards.drsow_reward "
    "--model_name_or_path org/policy --dataset_name org/prompts "
    "--output_dir trained": "test_grpo.py does",
    "accelerate launch --multi_gpu --num_processes 4 -m drsow_plugin.cli eval --model drsow "
    "--model_args strong=org/model-dpo,weak=org/model-sft --tasks llmbar": "test_cli.py, on CPUs",
    "make demo": "minutes; .ci/run runs it",
    "make study HELPFUL=helpful.jsonl.gz HARMLESS=harmless.jsonl.gz": "an hour; "
    "test_ten_models.py does it with a tiny model",
    "make test": "runs this",
    "python examples/train_pair.py adapter helpful.jsonl.gz harmless.jsonl.gz": "long; "
    "test_train_pair.py trains on a few rows",
    **dict.fromkeys(
        (
            "python examples/train_pair.py chosen helpful.jsonl.gz harmless.jsonl.gz "
            "--loss sft-chosen",
            "python examples/train_pair.py rejected helpful.jsonl.gz harmless.jsonl.gz "
            "--loss sft-rejected",
            "python examples/measure_pair.py helpful.jsonl.gz harmless.jsonl.gz "
            "--adapter chosen --adapter rejected",
        ),
        "likewise",
    ),
    "pip install .": "scripts/check_wheel.sh and test_plugin_package.py install what they build",
    "sh scripts/install_servers.sh .venv-servers": "gigabytes; make test-servers does",
    "python scripts/demo_folder.py demo-model": "make test-servers does",
    "VLLM_CPU_KVCACHE_SPACE=1 TORCHDYNAMO_DISABLE=1 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 "
    ".venv-servers/bin/python -m vllm.entrypoints.openai.api_server --model demo-model "
    "--served-model-name demo --host 127.0.0.1 --port 8000 "
    "--dtype float32 --enforce-eager --max-model-len 2048": "make test-servers starts it so",
    **dict.fromkeys(
        (
            "export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 RAY_USAGE_STATS_ENABLED=0",
            "ray start --head --num-cpus 2 --node-ip-address 127.0.0.1 --include-dashboard false",
            "drsow annotate examples/candidates.jsonl by-ray --strong demo --weak demo "
            "--weak-template none --driver ray --num-actors 1",
            "ray stop",
        ),
        "make test-ray labels on clusters of its own: ray stop ends those of others too",
    ),
    "echo 'Is this contract valid?' | drsow route --router legal": "test_plugin_package.py does",
}

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with what a checkout has for the pages to read, and an empty cache."""
    for name in ("examples", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name)
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


def followed(page: Path, address: str = ADDRESS) -> Iterator[tuple[Block, str]]:
    """Do what a page says, with a server at an address; yield its blocks with what they print.

    What is printed has to be as the page shows it, but where it is what the real demo prints.
    """
    block, printed = Block("", "", ""), ""
    with Reader(NOT_RUN) as reader:
        for after in blocks(page):
            if after.language in OUTPUT:
                assert after.text.strip() in printed or page.name in ("README.md", "serving.md")
            elif after.language != "toml":
                block = replace(after, text=after.text.replace(ADDRESS, address))
                printed = reader.follow(block)
                yield block, printed


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(PAGES) - {"plugins.md", "publishing.md", "serving.md"}))
def test_everything_that_a_page_shows_runs(name: str, tiny_demo: Path) -> None:
    assert all(block.text for block, _ in followed(PAGES[name]))


@pytest.mark.slow
def test_the_page_on_plugins_routes_labels_and_evaluates(tiny_demo: Path) -> None:
    printed = {block.text: output for block, output in followed(PAGES["plugins.md"])}
    (labelled,) = [output for text, output in printed.items() if "drsow annotate" in text]
    assert "domain tenancy:" in labelled and "domain (none):" in labelled
    (file,) = Path("out").glob("**/results_*.json")
    found = json.loads(file.read_text())["config"]["drsow"]["domains"]["domains"]
    assert {name: of["pairs"] for name, of in found.items()} == {"tenancy": 1, "(none)": 1}


@pytest.mark.slow
def test_the_page_on_publishing_publishes(tiny_demo: Path, server: HubServer) -> None:
    assert list(followed(PAGES["publishing.md"]))
    assert "drsow:begin" in Path("card/README.md").read_text()
    assert "README.md" in server.repositories["your-name/your-data"].files()


@pytest.mark.slow
def test_the_page_on_serving_scores_with_a_server(tiny_demo: Path) -> None:
    with ModelServer(model=saved(demo.demo_model(), "demo", max_length=8192)) as server:
        printed = [
            text for _, text in followed(PAGES["serving.md"], server.url.removesuffix("/v1"))
        ]
        assert server.requests
    assert printed[-1].endswith("0.000 nats apart\n")


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
            linked = file.read_text(encoding="utf-8") if file.suffix == ".md" else ""
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
    known |= {*PAGE_OPTIONS, *DriverOptions.__annotations__}
    known |= preference.METADATA | best_of_n.METADATA
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
