from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the Hub by accident
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["OMP_NUM_THREADS"] = "1"  # in what tests start too: it decides the rounding

import pytest
import torch
import transformers
from helpers import tiny
from helpers.cost import Cost, too_much
from helpers.hub_server import READER, TOKEN, HubServer
from helpers.routing_plugin import PLUGIN
from huggingface_hub import constants

from drsow_plugin.publishing import repository

torch.set_num_threads(1)

STARTED = pytest.StashKey[Cost]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that none is left for one process at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for no garbage in what is imported: not now, nor when the package asks for it later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    item.stash[STARTED] = Cost.so_far()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Hold that what `make quick` runs is quick, whoever adds to it."""
    result = yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()  # what a file has imported, too, is no garbage to look for in all that follow
    if not any(map(item.get_closest_marker, ("slow", "gpu", "pages"))):
        reason = too_much(item.stash[STARTED], Cost.so_far())
        if reason:
            pytest.fail(f"Mark this test slow, or make it cheaper: {reason}.", pytrace=False)
    return result


@pytest.fixture(scope="session", autouse=True)
def machine() -> Iterator[None]:
    """Let lm-eval describe the machine without the dozen commands that it runs each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.collect_env.get_pretty_env_info", lambda: "a machine")
        yield


@pytest.fixture(scope="session", autouse=True)
def genuine() -> Any:
    return transformers.PreTrainedModel.tie_weights


@pytest.fixture(autouse=True)
def tying(genuine: Any) -> None:
    """Let transformers tie weights: loads in two threads, in a test before, may have ended that."""
    if transformers.PreTrainedModel.tie_weights is not genuine:
        transformers.PreTrainedModel.tie_weights = genuine


@pytest.fixture(scope="session")
def strong(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save(tmp_path_factory.mktemp("strong"), seed=1)


@pytest.fixture(scope="session")
def weak(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save(tmp_path_factory.mktemp("weak"), seed=2)


@pytest.fixture
def models(strong: str, weak: str) -> list[str]:
    return ["--strong", strong, "--weak", weak]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRSOW_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lm-eval's command, in this process, read our task files only: of its own it has many."""
    import lm_eval.tasks
    from lm_eval.tasks._index import TaskIndex

    own, walk = Path(lm_eval.tasks.__file__).parent, TaskIndex._iter_yaml_files
    monkeypatch.setattr(
        TaskIndex, "_iter_yaml_files", staticmethod(lambda path: () if path == own else walk(path))
    )
    monkeypatch.setattr(sys, "argv", list(sys.argv))  # the command is given another


@pytest.fixture
def preference_file(tmp_path: Path) -> Path:
    file = tmp_path / "preferences.jsonl"
    file.write_text(
        '{"prompt": "What is the capital of France?", "chosen": "Paris.", "rejected": "A dog."}\n'
        '{"prompt": "Add two numbers.", "chosen": "    return a + b", "rejected": "I will not."}\n'
        '{"prompt": "Say it.", "chosen": "same", "rejected": "same"}\n',
        encoding="utf-8",
    )
    return file


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return str(path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """Let both clients talk to a stand-in, although they read its address when imported."""
    import datasets

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(repository, "WAITS", (0.0, 0.0, 0.0))
    with HubServer(tokens=[TOKEN], readers=[READER]) as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(tmp_path / "hub"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        for name, value in {
            "HF_ENDPOINT": server.url,
            "HUB_DATASETS_URL": server.url + "/datasets/{repo_id}/resolve/{revision}/{path}",
            "HF_HUB_OFFLINE": False,
            "HF_UPDATE_DOWNLOAD_COUNTS": False,
            "HF_DATASETS_CACHE": tmp_path / "datasets",
        }.items():
            monkeypatch.setattr(datasets.config, name, value)
        yield server
