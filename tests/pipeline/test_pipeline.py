"""The whole of a recipe with tiny models: from prompts to a table, killed and gone on with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import tiny
from helpers.commands import drsow, write, wrong

from drsow_plugin import LanguageModel
from drsow_plugin.pipeline import runner
from drsow_plugin.pipeline.evaluation import Evaluation


def pairs(name: str, count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Say {name} {n}.", "chosen": f"It is {n}, sir.", "rejected": f"No {n}!"}
        for n in range(count)
    ]


@pytest.fixture
def recipe(tmp_path: Path, cache: None) -> Path:
    """Return the file of a recipe with everything in it."""
    model = tiny.save(tmp_path / "policy", seed=3)
    write(tmp_path / "prompts.jsonl", [{"question": f"What is {n}?"} for n in range(16)])
    for name, count in (("human", 8), ("judge", 8), ("people", 6)):
        write(tmp_path / f"{name}.jsonl", pairs(name, count))
    trained = {"batch_rows": 4, "batch_pairs": 4, "min_pairs": 4, "lora_rank": 2}
    options = {
        "policy": model,
        "prompts": {"data": "prompts.jsonl", "held_out": 4, "prompt_column": "question"},
        "generate": {"candidates": 3, "max_tokens": 6, "temperature": 2.0, "max_cut": 1},
        "annotate": {"strong": model, "weak": model, "weak_template": "none"},
        "check": {
            "max_ties": 1,
            "max_missing": 1,
            "max_length_correlation": 1,
            "max_duplicates": 1,
            "max_contested": 1,
        },
        "publish": {"to": "me/tiny", "dry_run": True},
        "tune": {**trained, "learning_rate": 0.01, "checkpoint_steps": 1},
        "labels": ["given", "random"],
        "human": {"data": "human.jsonl"},
        "rounds": 2,
        "judge": {"pairs": "judge.jsonl", **trained},
        "evaluate": {"pairs": "people.jsonl", "candidates": 2},
    }
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(options), encoding="utf-8")
    return file


def in_process(arguments: Sequence[str]) -> int:
    """Run a step without a process of its own, which would import torch for each."""
    result = drsow(*arguments)
    if result.exit_code:
        sys.stderr.write(result.output)
    return result.exit_code


@pytest.mark.slow
def test_from_prompts_to_a_table(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "call_drsow", in_process)
    out = tmp_path / "out"
    result = drsow("pipeline", recipe, "--out", out)
    assert result.exit_code == 0, result.output
    table = (out / "results.md").read_text(encoding="utf-8")
    assert table in result.stdout
    first, seeds = table.split("By seed, and less the arm of random labels:")
    arms = ["given", "given again", "random", "human"]
    assert re.findall(r"^\| (?!trained|---)(.*?) \|", first, re.MULTILINE) == arms
    assert re.findall(r"^\| (.*?) \| reward \|", seeds, re.MULTILINE) == arms
    assert "Not measured" not in table
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    figures = {arm["arm"]: {f["name"]: f for f in arm["figures"]} for arm in found["arms"]}
    for of in figures.values():
        assert list(of) == [
            *("implicit accuracy", "win rate", "win rate at equal length"),
            *("reward", "length", "divergence"),
        ]
        assert all(0 <= of[name]["estimate"]["value"] <= 1 for name in [*of][:3])
        assert of["divergence"]["estimate"]["n"] == 4 * 2
    # Trained at this rate on what is the same in all of them, it learned what people preferred.
    assert figures["human"]["implicit accuracy"]["estimate"]["value"] == 1.0
    assert figures["random"]["reward"]["over_random"] is None
    assert figures["given"]["reward"]["over_random"] is not None
    assert (next(out.glob("card-*")) / "README.md").is_file()
    assert all(seconds is not None for seconds in found["seconds"].values())

    # The start is measured by itself: it has no divergence, and its pairs are the judge's.
    start = Evaluation.read(next(out.glob("measured-start-*")))
    assert len(start.answers) == 8 and len(start.pairs) == 6
    assert all(pair.margin is None and pair.judge is not None for pair in start.pairs)
    assert found["judge_accuracy"]["n"] == 6 and "The judge prefers what people" in table
    assert all(a.divergence is None and a.judge is not None for a in start.answers)

    # What could not be measured is said.
    file = next(out.glob("measured-random-0-*"))
    values = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**values, "left_out": {"pairs without judge": 2}}))
    told = drsow("pipeline", recipe, "--out", out).stdout
    assert "Not measured, random (seed 0): 2 pairs without judge." in told
    file.write_text(json.dumps(values))

    # Once more: nothing is done, and the table is the same.
    again = drsow("pipeline", recipe, "--out", out)
    assert "0 steps run" in again.stdout and table in again.stdout

    # A changed file is followed by what depends on it, and by nothing else.
    write(tmp_path / "human.jsonl", pairs("other", 8))
    third = drsow("pipeline", recipe, "--out", out)
    assert f"3 steps run, {len(found['seconds']) - 3} finished before" in third.stdout


@pytest.mark.slow
def test_a_policy_that_has_an_adapter_is_measured_with_it_once(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "call_drsow", in_process)
    options = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    for name in ("judge", "human", "publish", "rounds", "labels"):
        del options[name]
    model, adapter = options["policy"], str(tmp_path / "adapter")
    trained = {"policy": model, "learning_rate": 0.1, "lora_rank": 2, "min_pairs": 4}
    trained |= {"batch_pairs": 2}  # three steps
    words = [word for n, v in trained.items() for word in (f"--{n.replace('_', '-')}", v)]
    assert drsow("tune", tmp_path / "people.jsonl", adapter, *words).exit_code == 0
    apart = [
        LanguageModel(model, **more).logprobs(["What is 3?"], ["It is 3."])[0].total
        for more in ({}, {"adapter": adapter})
    ]
    assert abs(apart[0] - apart[1]) > 0.05
    options["policy"] = {"model": model, "adapter": adapter}
    options["tune"] |= {"merge": True, "learning_rate": 1e-9}  # which changes nothing
    recipe.write_text(yaml.safe_dump(options), encoding="utf-8")
    result = drsow("pipeline", recipe, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = Evaluation.read(next((tmp_path / "out").glob("measured-given-*")))
    assert [a.divergence for a in found.answers] == pytest.approx([0.0] * 8, abs=1e-3)


@pytest.mark.slow
def test_labels_that_do_not_pass_end_the_run(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "call_drsow", in_process)
    options = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    for name in ("judge", "human", "evaluate", "publish", "rounds"):
        del options[name]
    del options["prompts"]["held_out"]
    options["check"] = {"max_length_correlation": 0.0}
    recipe.write_text(yaml.safe_dump(options), encoding="utf-8")
    said = wrong("pipeline", recipe, "--out", tmp_path / "out")
    assert "Step 3 of 5, check, ended with status 3" in said, said[-600:]
    assert "set other bounds in check" in said and "drsow check" in said
    options["check"], options["tune"]["min_pairs"] = False, 100
    recipe.write_text(yaml.safe_dump(options), encoding="utf-8")
    said = wrong("pipeline", recipe, "--out", tmp_path / "out")
    assert "tuned given 0, ended with status 1" in said


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.fault(
    "kill",
    "SIGKILL of `drsow pipeline` and its step as it samples, then SIGTERM as it trains",
    "one line; the same command keeps finished steps, goes on and comes to its table",
)
def test_a_killed_pipeline_goes_on(recipe: Path, tmp_path: Path) -> None:
    """It is killed with its step, or told to stop, in the middle of each kind of step."""
    options = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    for name in ("judge", "human", "publish", "rounds", "check"):
        del options[name]
    options["labels"] = ["given"]
    recipe.write_text(yaml.safe_dump({**options, "check": False}), encoding="utf-8")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "drsow_plugin.cli", "pipeline", str(recipe), "--out", str(out)]
    told = tmp_path / "told"
    for kind, number in (("generate", signal.SIGKILL), ("tune", signal.SIGTERM)):
        with told.open("w") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
            while f"drsow {kind}" not in told.read_text():
                assert process.poll() is None, told.read_text()
                time.sleep(0.1)
            time.sleep(3)
            os.killpg(process.pid, number)
            process.wait(60)
        if number == signal.SIGTERM and process.returncode != 0:
            assert "Interrupted" in told.read_text()
    last = subprocess.run(command, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert "| given |" in last.stdout and "finished before" in last.stdout
