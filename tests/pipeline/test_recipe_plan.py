"""A recipe as commands: each one that its command takes, each output named by all it depends on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from helpers.commands import drsow, wrong

from drsow_plugin import ConfigError
from drsow_plugin.cli import main
from drsow_plugin.pipeline.plan import make_plan
from drsow_plugin.pipeline.recipe import read_recipe
from drsow_plugin.pipeline.runner import as_command
from drsow_plugin.pipeline.steps import Plan

RECIPES = Path(__file__).parents[2] / "recipes"


def planned(folder: Path, **change: Any) -> Plan:
    """Return the plan of a recipe with everything in it, but for what is changed."""
    for name in ("prompts", "pairs", "human", "judge"):
        file = folder / f"{name}.jsonl"
        if not file.exists():
            file.write_text(f'{{"of": "{name}"}}\n', encoding="utf-8")
    recipe: dict[str, Any] = {
        "policy": {"model": "demo", "dtype": "float32"},
        "prompts": {"data": "prompts.jsonl", "held_out": 5, "prompt_column": "question"},
        "generate": {"candidates": 3, "top_p": 0.9},
        "annotate": {"strong": "org/a", "weak": "org/b", "weak_template": "none"},
        "check": {"max_ties": 0.2},
        "publish": {"to": "you/data", "public": True},
        "tune": {"lora_rank": 4},
        "labels": ["given", "random"],
        "human": {"data": "human.jsonl", "limit": 9},
        "seeds": [0, 1],
        "rounds": 2,
        "judge": {"pairs": "judge.jsonl", "epochs": 2},
        "evaluate": {"pairs": "pairs.jsonl", "limit": 7, "temperature": 1.0},
        **change,
    }
    file = folder / "recipe.yaml"
    given = {name: value for name, value in recipe.items() if value is not None}
    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    return make_plan(read_recipe(str(file), allow_code=True), folder / "out")


def named(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {step.name: step.command for step in plan.steps}


def outputs(plan: Plan) -> dict[str, str]:
    return {step.name: step.output.name for step in plan.steps}


def after(command: tuple[str, ...], option: str) -> str:
    return command[command.index(option) + 1]


def test_the_steps_in_order(tmp_path: Path) -> None:
    names = [step.name for step in planned(tmp_path).steps]
    arms = []
    for seed in (0, 1):
        for arm in ("given", "again", "random", "human"):
            sampled = "given again" if arm == "again" else arm
            more = [f"candidates again {seed}", f"labelled again {seed}"] if arm == "again" else []
            arms += [
                *more,
                *(f"tuned {arm} {seed}", f"answers {sampled} {seed}", f"measured {sampled} {seed}"),
            ]
    first = ["prompts", "judge", "answers start", "measured start", "candidates", "labelled"]
    assert names == [*first, "check", "published", *arms]


@pytest.mark.parametrize("name", [*sorted(f.stem for f in RECIPES.glob("*.yaml")), "everything"])
def test_every_command_takes_its_options(tmp_path: Path, name: str) -> None:
    if name == "everything":
        plan = planned(tmp_path)
    else:
        plan = make_plan(read_recipe(str(RECIPES / f"{name}.yaml")), tmp_path)
    for step in plan.steps:
        command = main.commands[step.command[0]]
        # Whatever is no option of the command is refused here.
        context = command.make_context(step.command[0], [*step.command[1:]])
        assert isinstance(context, click.Context)
        assert as_command(step).startswith(f"drsow {step.command[0]} ")


def test_what_a_step_reads_is_what_one_before_it_wrote(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    written: set[str] = set()
    for step in plan.steps:
        ours = [part for part in step.command if part.startswith(str(plan.folder))]
        for part in ours:
            whole = str(Path(part).parent) if part.endswith(".jsonl") else part
            assert whole in written or part == str(step.output), (step.name, part)
        written.add(str(step.output))
    assert [m.file for m in plan.measured] == [
        step.output for step in plan.steps if step.name.startswith("measured")
    ]


def test_the_same_recipe_is_the_same_steps_wherever_it_writes(tmp_path: Path) -> None:
    recipe = read_recipe(str(RECIPES / "mini.yaml"))
    here, there = (make_plan(recipe, tmp_path / name) for name in ("here", "there"))
    assert outputs(here) == outputs(there)
    assert len({*outputs(here).values()}) == len(here.steps)


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        ({"labels": ["given", "random", "longer"]}, "nothing"),
        ({"seeds": [0, 1, 2]}, "nothing"),
        ({"rounds": 1}, "nothing"),
        ({"check": {"max_ties": 0.3}}, "check"),
        ({"tune": {"lora_rank": 8}}, "tuned|answers (?!start)|measured (?!start)|.* again"),
        ({"human": {"data": "human.jsonl", "limit": 8}}, ".* human"),
        ({"judge": {"pairs": "judge.jsonl", "epochs": 1}}, "judge|measured"),
        ({"evaluate": {"pairs": "pairs.jsonl", "limit": 6, "temperature": 1.0}}, "measured"),
        (
            {"generate": {"candidates": 4, "top_p": 0.9}},
            "cand|label|check|publ|.*(given|random|ag)",
        ),
    ],
)
def test_a_change_is_followed_by_what_depends_on_it(
    tmp_path: Path, change: dict[str, Any], anew: str
) -> None:
    before = outputs(planned(tmp_path))
    now = outputs(planned(tmp_path, **change))
    both = before.keys() & now.keys()
    changed = {name for name in both if before[name] != now[name]}
    assert changed == {name for name in both if re.match(anew, name)}


@pytest.mark.parametrize(
    ("file", "anew"), [("human", ".* human"), ("pairs", "measured"), ("prompts", "(?!jud)")]
)
def test_a_changed_file_is_followed_by_what_depends_on_it(
    tmp_path: Path, file: str, anew: str
) -> None:
    before = outputs(planned(tmp_path))
    (tmp_path / f"{file}.jsonl").write_text('{"other": 1}\n', encoding="utf-8")
    now = outputs(planned(tmp_path))
    changed = {name for name in now if before[name] != now[name]}
    human = {name for name in now if name == "tuned human 0" or name == "tuned human 1"}
    expected = {name for name in now if re.match(anew, name)}
    assert changed == (expected - human if file == "prompts" else expected)


def test_a_trained_policy_is_opened_as_it_was_written(tmp_path: Path) -> None:
    steps = named(planned(tmp_path))
    plain = steps["answers random 0"]
    assert after(plain, "--policy") == "demo" and "tuned-random-0" in after(plain, "--adapter")
    measured = steps["measured random 0"]
    assert after(measured, "--policy-adapter") == after(plain, "--adapter")
    assert (after(measured, "--start"), after(measured, "--start-dtype")) == ("demo", "float32")
    whole = named(planned(tmp_path, tune={}, rounds=None))["answers random 0"]
    assert "tuned-random-0" in after(whole, "--policy") and "--adapter" not in whole


def test_the_second_round_is_labelled_by_the_tuned_over_its_start(tmp_path: Path) -> None:
    steps = named(planned(tmp_path))
    adapter = after(steps["answers given 0"], "--adapter")
    assert after(steps["candidates again 0"], "--adapter") == adapter
    labelled = steps["labelled again 0"]
    assert after(labelled, "--strong-adapter") == adapter
    assert (after(labelled, "--strong"), after(labelled, "--weak")) == ("demo", "demo")
    assert "--weak-adapter" not in labelled and "--weak-template" not in labelled
    tuned = steps["tuned again 0"]
    assert (after(tuned, "--adapter"), after(tuned, "--merge")) == (adapter, "true")
    again = steps["answers given again 0"]
    assert "tuned-again-0" in after(again, "--policy") and "--adapter" not in again


def test_labels_and_seeds_go_to_the_training(tmp_path: Path) -> None:
    steps = named(planned(tmp_path))
    assert (
        "--labels" not in steps["tuned given 1"] and after(steps["tuned given 1"], "--seed") == "1"
    )
    assert after(steps["tuned random 0"], "--labels") == "random"
    human = steps["tuned human 0"]
    assert human[1].endswith("human.jsonl") and after(human, "--limit") == "9"
    assert {after(c, "--seed") for n, c in steps.items() if n.startswith("answers")} == {"0"}


def test_with_grpo_there_are_no_labels(tmp_path: Path) -> None:
    pair = {"strong": "org/a", "weak": "org/b"}
    without = dict.fromkeys(
        ("generate", "annotate", "check", "publish", "tune", "labels", "human", "rounds")
    )
    plan = planned(tmp_path, grpo={**pair, "lora_rank": 2}, **without)
    steps = named(plan)
    assert [n for n in steps if not n.startswith(("answers", "measured"))] == [
        *("prompts", "judge", "tuned grpo 0", "tuned grpo 1")
    ]
    assert after(steps["tuned grpo 0"], "--policy-dtype") == "float32"
    assert "tuned-grpo-0" in after(steps["answers grpo 0"], "--adapter")
    assert after(steps["measured grpo 1"], "--strong") == "org/a"


def test_a_policy_with_an_adapter_has_it_once(tmp_path: Path) -> None:
    policy = {"model": "demo", "adapter": "org/ad", "adapter_revision": "v2", "revision": "v1"}
    for tune in ({"lora_rank": 4, "merge": True}, {}):
        steps = named(planned(tmp_path, policy=policy, tune=tune))
        assert after(steps["tuned random 0"], "--adapter") == "org/ad"
        for command, option in (("answers", "--"), ("measured", "--policy-")):
            tuned = steps[f"{command} random 0"]
            assert "tuned-random-0" in after(tuned, "--policy")
            for name in ("adapter", "adapter-revision", "revision"):
                assert f"{option}{name}" not in tuned
        assert after(steps["measured random 0"], "--start-adapter") == "org/ad"
        assert "tuned-given-0" in after(steps["candidates again 0"], "--policy")


def test_what_is_trained_is_not_asked_of_a_server(tmp_path: Path) -> None:
    generate = {"server": "http://127.0.0.1:1/v1", "server_wait": 9, "candidates": 3}
    change: dict[str, Any] = {"policy": "org/m", "generate": generate, "tune": {}}
    steps = named(planned(tmp_path, **change))
    served = [name for name, command in steps.items() if "--server" in command]
    assert served == ["candidates"]
    assert not [name for name, command in steps.items() if "--server-wait" in command][1:]


def test_a_judge_of_another_model_has_none_of_the_policys_options(tmp_path: Path) -> None:
    policy = {"model": "org/m", "revision": "abc", "template": "none"}
    own = {"pairs": "judge.jsonl", "policy": "org/j", "data_split": "train"}
    judge = named(planned(tmp_path, policy=policy, judge=own))["judge"]
    assert after(judge, "--policy") == "org/j" and after(judge, "--data-split") == "train"
    assert "--revision" not in judge and "--template" not in judge
    same = named(planned(tmp_path, policy=policy))["judge"]
    assert (after(same, "--policy"), after(same, "--revision")) == ("org/m", "abc")


def test_the_column_of_prompts_goes_to_all_that_read_it(tmp_path: Path) -> None:
    steps = named(planned(tmp_path))
    for name in ("prompts", "candidates", "labelled", "labelled again 0", "answers start"):
        assert after(steps[name], "--prompt-column") == "question", name
    assert after(steps["measured random 1"], "--prompt-column") == "question"


def test_what_is_beside_the_steps_is_known_by_its_contents(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("a", "b"):
        (tmp_path / "out" / f"{name}.py").write_text("A = 1")
    plugins = "+".join(str(tmp_path / "out" / f"{name}.py") for name in ("a", "b"))
    pair = {"strong": "org/a", "weak": "org/b"}
    change = {"annotate": {**pair, "router": "keyword", "plugin": plugins}}
    before = outputs(planned(tmp_path, **change))
    assert outputs(planned(tmp_path, **change)) == before
    (tmp_path / "out" / "b.py").write_text("A = 2")
    now = outputs(planned(tmp_path, **change))
    assert now["candidates"] == before["candidates"] and now["labelled"] != before["labelled"]


def test_a_plugin_that_is_a_module_is_known_by_its_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("plain_plugin.py", "whole_plugin/__init__.py", "whole_plugin/rules.py"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("A = 1")
        pair = {"strong": "org/a", "weak": "org/b", "plugin": file.parts[-2].partition(".")[0]}
        if name.startswith("plain"):
            pair["plugin"] = "plain_plugin"
        change = {"annotate": {**pair, "router": "keyword"}}
        before = outputs(planned(tmp_path, **change))["labelled"]
        file.write_text("A = 2")
        assert outputs(planned(tmp_path, **change))["labelled"] != before


def test_a_folder_that_is_read_is_not_written_into(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is read, and .*out in it is written to\. Write some"):
        planned(tmp_path, prompts={"data": str(tmp_path), "held_out": 3})


def test_a_folder_named_as_a_command_is_none_of_its_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = outputs(planned(tmp_path))
    (tmp_path / "annotate" / "out").mkdir(parents=True)
    assert outputs(planned(tmp_path)) == before


def test_a_dry_run_shows_the_steps_until_one(tmp_path: Path) -> None:
    planned(tmp_path)
    run = ("pipeline", tmp_path / "recipe.yaml", "--out", tmp_path / "out", "--dry-run")
    shown = drsow(*run, "--until", "judge").stdout
    assert re.findall("^# (.*)$", shown, re.M) == ["prompts", "judge"]
    assert "Unknown step 'jugde'. Did you mean 'judge'?" in wrong(*run, "--until", "jugde")
