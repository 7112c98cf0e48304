"""A recipe is checked as a whole before anything runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.commands import drsow, wrong

from drsow_plugin import ConfigError
from drsow_plugin.pipeline import checks
from drsow_plugin.pipeline.recipe import read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
PLAIN: dict[str, Any] = {
    "policy": "org/model",
    "prompts": {"data": "prompts.jsonl"},
    "annotate": {"strong": "org/a", "weak": "org/b"},
}
MEASURED: dict[str, Any] = {
    **PLAIN,
    "prompts": {"data": "prompts.jsonl", "held_out": 10},
    "evaluate": {"pairs": "pairs.jsonl"},
}


def written(folder: Path, recipe: Any) -> str:
    for name in ("prompts", "pairs", "human"):
        (folder / f"{name}.jsonl").write_text(f'{{"of": "{name}"}}\n')
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_recipes_are_right(file: Path) -> None:
    recipe = read_recipe(str(file))
    assert recipe.name == file.stem
    if recipe.prompts["data"].startswith(str(RECIPES)):  # what comes with a recipe is there
        assert Path(recipe.prompts["data"]).is_file()


def test_defaults(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, PLAIN))
    assert recipe.policy == {"policy": "org/model"}
    assert (recipe.labels, recipe.seeds, recipe.rounds) == (("given",), (0,), 1)
    assert (recipe.tune, recipe.check) == ({}, {})
    assert (recipe.grpo, recipe.human, recipe.judge, recipe.evaluate) == (None,) * 4


def test_files_are_looked_for_beside_the_recipe(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, {**MEASURED, "human": {"data": "org/elsewhere"}}))
    assert recipe.prompts["data"] == str(tmp_path / "prompts.jsonl")
    assert recipe.human == {"data": "org/elsewhere"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"polcy": "x"}, "Unknown key 'polcy'. Did you mean 'policy'?"),
        ({"policy": None}, "policy is the model to tune"),
        ({"policy": {"model": "m", "dtyp": "x"}}, "policy: Unknown key 'dtyp'. Did you mean"),
        ({"prompts": {"held_out": 3}}, "prompts has to name data"),
        ({"prompts": {"data": "x", "colum": "y"}}, "prompts: Unknown key 'colum'"),
        ({"prompts": "prompts.jsonl"}, "prompts holds options by name"),
        ({"annotate": {"strong": "org/a"}}, "annotate: "),
        ({"annotate": None}, "annotate has to name the pair"),
        ({"annotate": {**PLAIN["annotate"], "sellection": "x"}}, "Unknown option 'sellection'"),
        ({"generate": {"candidates": 0}}, "generate: candidates"),
        ({"tune": {"method": "ppo"}}, "tune: Unknown value of method 'ppo'"),
        ({"tune": {"seed": 3}}, "list them as seeds and labels"),
        ({"check": {"max_tie": 0.1}}, "check: Unknown option 'max_tie'. Did you mean 'max_ties'"),
        ({"labels": ["given", "longest"]}, "labels: Unknown labels 'longest'"),
        ({"labels": ["given", "given"]}, "labels names one or more, each once"),
        ({"seeds": [0, -1]}, "seeds"),
        ({"seeds": []}, "seeds names one or more"),
        ({"rounds": 3}, "rounds is 1 or 2, got 3"),
        ({"rounds": 2, "labels": ["random"]}, "name them first"),
        ({"human": {"limit": 3}}, "human has to name data"),
        ({"publish": {"public": True}}, "publish has to name the data set"),
        ({"judge": {"model": "org/rm"}}, "judge has no effect without evaluate"),
        ({"evaluate": {"pairs": "x"}}, "evaluate needs prompts that are held out"),
        ({"prompts": {"data": "x", "held_out": 3}}, "held_out has no effect without evaluate"),
        ({**MEASURED, "judge": {"model": "m", "pairs": "p"}}, "judge names pairs to train one on"),
        ({**MEASURED, "judge": {"pairs": "p", "beta": 1}}, "judge: beta has no effect"),
        ({**MEASURED, "judge": {"model": "m", "overflw": 1}}, "judge: Unknown option of a reward"),
        ({**MEASURED, "evaluate": {"max_tokns": 1}}, "evaluate: Unknown key 'max_tokns'"),
        (
            {**MEASURED, "generate": {"engine": "vllm"}, "tune": {"lora_rank": 2}},
            "evaluate: adapter has no effect with engine=vllm",
        ),
        ({"grpo": PLAIN["annotate"]}, "annotate has no effect with grpo"),
        ({"grpo": {**PLAIN["annotate"], "x": 1}, "annotate": None}, "grpo: Unknown option 'x'"),
        (
            {"grpo": {**PLAIN["annotate"], "policy_adapter": "a"}, "annotate": None},
            "grpo: policy_adapter has no effect; name the model under policy",
        ),
        ({"generate": {"adapter": "org/ad"}}, "generate: adapter has no effect; name the model"),
        ({"generate": {"policy": "org/x"}}, "generate: policy has no effect; name the model under"),
        ({"tune": {"policy": "org/x"}}, "tune: policy has no effect; name the model under policy"),
        ({"tune": {"method": "reward"}}, "tune: method=reward trains no policy"),
        ({"tune": False}, "tune holds options by name, got False"),
        ({"generate": False}, "generate holds options by name, got False"),
        ({"prompts": {"data": "x", "unique": True}}, "unique has no effect without evaluate"),
        ({"prompts": {"data": "none.jsonl"}}, "prompts: none.jsonl: there is no such file"),
        ({"prompts": {"data": ["a.jsonl"]}}, "prompts: data is one file, folder or Hub id, got ["),
        ({"human": {"data": "none.jsonl"}}, "human: none.jsonl: there is no such file"),
        ({"human": {"data": "human.jsonl", "limit": "few"}}, "human: limit is a whole number"),
        ({"tune": {"limit": "few"}}, "tune: limit is a whole number"),
        ({"annotate": {**PLAIN["annotate"], "num_proc": "x"}}, "annotate: num_proc"),
        ({"publish": {"to": "no slash here"}}, "publish: A data set on the Hub is named"),
        ({"publish": {"to": "a/b", "dry_run": "ja"}}, "publish: dry_run"),
        (
            {**MEASURED, "prompts": {"data": "x", "held_out": "many"}},
            "prompts: held_out is",
        ),
        ({**MEASURED, "evaluate": {"pairs": "none.jsonl"}}, "evaluate: none.jsonl: there is no su"),
        (
            {**MEASURED, "human": {"data": "pairs.jsonl"}},
            "pairs.jsonl is trained on. Hold some pairs out",
        ),
        ({**MEASURED, "judge": {"pairs": "pairs.jsonl"}}, "pairs.jsonl is trained on. Hold some"),
        ({**MEASURED, "judge": {"pairs": "none.jsonl"}}, "judge: none.jsonl: there is no such fil"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    recipe = {name: value for name, value in {**PLAIN, **change}.items() if value is not None}
    file = written(tmp_path, recipe)
    with pytest.raises(ConfigError, match=r"recipe\.yaml: ") as error:
        read_recipe(file)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_recipe_runs_no_code_unasked(tmp_path: Path) -> None:
    recipe = {**PLAIN, "annotate": {**PLAIN["annotate"], "weak_trust_remote_code": True}}
    file = written(tmp_path, recipe)
    with pytest.raises(ConfigError, match=r"would run code: code from the repository of org/b"):
        read_recipe(file)
    assert read_recipe(file, allow_code=True).annotate["weak_trust_remote_code"] is True


@pytest.mark.parametrize(
    ("recipe", "missing", "message"),
    [
        (PLAIN, "trl", r"drsow-plugin\[train\]"),
        (
            {**PLAIN, "generate": {"server": "http://127.0.0.1:1/v1"}},
            "aiohttp",
            r"drsow-plugin\[server\]",
        ),
        ({**PLAIN, "generate": {"engine": "vllm"}}, "vllm", "pip install vllm"),
    ],
)
def test_a_missing_package_is_known_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Any, missing: str, message: str
) -> None:
    def find(name: str) -> Any:
        return None if name == missing else importlib.util.find_spec(name)

    monkeypatch.setattr(checks, "find_spec", find)
    file = written(tmp_path, recipe)
    assert message.replace("\\", "") in wrong("pipeline", file, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert drsow("pipeline", file, "--dry-run").exit_code == 0
