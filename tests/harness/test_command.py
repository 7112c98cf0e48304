"""The command of lm-eval: what is told before the work, and how its own mistakes are told."""

from __future__ import annotations

import pkgutil
import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
import pytest
from click.testing import CliRunner
from helpers.harness import NEXT, Scorer, run
from huggingface_hub import constants
from lm_eval.tasks import TaskManager

from drsow_plugin import ConfigError, DataError
from drsow_plugin.cli import main
from drsow_plugin.errors import HubError
from drsow_plugin.harness import benchmarks, tasks_path
from drsow_plugin.harness.benchmarks import metadata_names, preference
from drsow_plugin.harness.benchmarks.loading import SOURCE
from drsow_plugin.harness.command import in_plain_words, theirs_in_plain_words


def refused(**arguments: Any) -> str:
    """Return what is said before lm-eval is asked to do anything; nothing if it is asked."""
    asked: list[Namespace] = []
    try:
        in_plain_words(asked.append)(Namespace(**arguments))
    except SystemExit as end:
        assert not asked
        return str(end.code)
    assert asked
    return ""


def test_every_task_says_which_metadata_it_reads() -> None:
    names = [file.stem for file in Path(tasks_path()).glob("*.yaml")]
    modules = {module.name for module in pkgutil.iter_modules(benchmarks.__path__)} - {"loading"}
    assert modules == {module for module in modules if any(n.startswith(module) for n in names)}
    for name in {name for task in names for name in metadata_names(task)} - SOURCE:
        assert name.endswith("_column")


@pytest.mark.parametrize(
    ("tasks", "metadata", "said"),
    [
        (["preference"], {"data": "x", "split": "y"}, "Unknown name in --metadata 'split'"),
        (["preference,llmbar"], {"dta": "x"}, "Did you mean 'data'"),
        (["rewardbench*"], {"prompt_column": "x"}, "Unknown name in --metadata 'prompt_column'"),
        (["llmbar", "llmbar_natural"], {"data": "x"}, "says nothing to llmbar, llmbar_natural"),
        (["llmbar", "preference"], {"data": "x"}, ""),
        (["preference"], dict.fromkeys(preference.METADATA, "x"), ""),
        (["preference", "niah_single_1"], {"max_seq_lengths": [4096]}, ""),
        (["hellaswag"], {"anything": 1}, ""),
    ],
)
def test_names_in_metadata_that_say_nothing_are_errors(
    tasks: list[str], metadata: dict[str, Any], said: str
) -> None:
    found = refused(model="hf", tasks=tasks, metadata=metadata)
    assert said in found and bool(said) == bool(found)


@pytest.mark.parametrize("option", ["output_path", "use_cache"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, option: str
) -> None:
    (tmp_path / "file").write_text("mine")
    for place in ("file/results", "file/results/x.json"):
        found = refused(model="drsow", **{option: str(tmp_path / place)})
        assert f"--{option} {tmp_path / place}: nothing can be written into" in found
    assert not refused(model="drsow", **{option: str(tmp_path / "new" / "folder" / "x.json")})
    assert not refused(model="hf", **{option: str(tmp_path / "file/results")})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # nothing is left behind


def test_an_unknown_task_is_one_line_with_the_nearest_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = partial(TaskManager, include_defaults=False)  # those of lm-eval take long to list
    monkeypatch.setattr(
        lm_eval.tasks, "TaskManager", lambda **_options: ours(include_path=tasks_path())
    )
    result = CliRunner().invoke(main, ["eval", "--model", "dummy", "--tasks", "llmbar_naturl,zzzz"])
    assert result.exit_code == 1
    assert "Error: Unknown task 'llmbar_naturl' (did you mean 'llmbar_natural' or" in result.output
    assert "'zzzz'" in result.output or NEXT  # which stops at the first
    assert "'drsow eval ls tasks' lists all of them." in result.output


def test_what_lm_eval_refuses_is_one_line_and_its_faults_stay_as_they_are() -> None:
    result = CliRunner().invoke(main, ["eval", "--model", "dummy", "--tasks", "x", "--log_samples"])
    assert result.exit_code == 1
    assert result.output == (
        "Error: lm-eval: Specify --output_path if providing --log_samples or --predict_only\n"
    )
    with pytest.raises(ValueError, match="a fault"), theirs_in_plain_words():
        raise ValueError("a fault")
    only = pytest.raises(ConfigError, match=r"^lm-eval: \[Errno 2\] no file$")
    with only, theirs_in_plain_words():
        raise FileNotFoundError(2, "no\nfile")
    with pytest.raises(BrokenPipeError), theirs_in_plain_words():
        raise BrokenPipeError


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Point the clients to a port where nobody answers, with caches that are empty."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.mark.usefixtures("unreachable")
def test_rewardbench_without_the_hub_asks_for_a_copy_and_tries_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wait(_seconds: float) -> None:
        pytest.fail("the Hub was asked again")

    monkeypatch.setattr(time, "sleep", wait)
    with pytest.raises(HubError, match="--metadata data=FILE") as caught:
        run(Scorer(len), ["rewardbench_chat"])
    assert "neither a file here nor in the local cache" in str(caught.value)


@pytest.mark.parametrize("name", ["dat", "chosen_colum", "data_sha"])
def test_a_name_near_to_ours_is_an_error_in_python_too(preference_file: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"Unknown name in --metadata '{name}'. Did you mean"):
        run(Scorer(len), ["preference"], metadata={"data": str(preference_file), name: "x"})


def test_the_arguments_of_models_are_no_names_in_metadata(preference_file: Path) -> None:
    arguments = {"pretrained": "x", "strong": "x", "device": "cpu", "dtype": "auto", "peft": "y"}
    results = run(Scorer(len), ["preference"], metadata={"data": str(preference_file), **arguments})
    assert results["results"]["preference"]["sample_len"] == 3
