"""A recipe as steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drsow_plugin.config.model import SIDE_OPTIONS
from drsow_plugin.config.pair import OPTIONS as PAIR_OPTIONS
from drsow_plugin.pipeline.spelling import judge_options, named, of_side, policy_of, sampled_here
from drsow_plugin.pipeline.steps import OUTPUT, Measured, Plan
from drsow_plugin.pipeline.values import HUMAN, LABELS, OF_PAIRS, Recipe
from drsow_plugin.records import SIDES

START = "start"
"""The arm that is not trained."""
SECOND_ROUND = "given again"
"""The arm of the second round: labelled by the tuned model over its start."""
_OF_PAIR = frozenset(
    ("strong", "weak", *(f"{side}_{name}" for side in SIDES for name in SIDE_OPTIONS))
)


def make_plan(recipe: Recipe, folder: Path) -> Plan:
    """Return the steps of a recipe.

    Args:
        recipe: What to do.
        folder: Where the steps write.
    """
    plan = Plan(folder)
    prompts = dict(recipe.prompts)
    data, held_out = prompts.pop("data"), None
    if recipe.evaluate is not None:
        parts = plan.add("prompts", ["split", data], prompts)
        data, held_out = parts / "train.jsonl", parts / "held_out.jsonl"
        prompts = {"prompt_column": prompts.get("prompt_column")}
    prompts.pop("held_out", None)
    prompts.pop("unique", None)
    judge = _judge(plan, recipe)
    _measure(plan, recipe, (START, 0), None, held_out, judge)
    if recipe.grpo is not None:
        for seed in recipe.seeds:
            options = {**named(policy_of(recipe)), **prompts, **recipe.grpo, "seed": seed}
            tuned = plan.add(f"tuned grpo {seed}", ["grpo", data], options)
            _measure(plan, recipe, ("grpo", seed), tuned, held_out, judge)
        return plan
    labelled = _labels(plan, recipe, data, prompts)
    for seed in recipe.seeds:
        for arm in recipe.arms:
            tuned = _tuned(plan, recipe, arm, seed, labelled)
            _measure(plan, recipe, (arm, seed), tuned, held_out, judge)
            if arm == LABELS[0] and recipe.rounds > 1:
                again = _again(plan, recipe, (data, prompts), tuned, seed)
                _measure(plan, recipe, (SECOND_ROUND, seed), again, held_out, judge)
    return plan


def _labels(plan: Plan, recipe: Recipe, data: Any, prompts: Mapping[str, Any]) -> Path:
    """Add the steps from prompts to labelled pairs."""
    sampled = {**policy_of(recipe), **prompts, **recipe.generate}
    candidates = plan.add("candidates", ["generate", data], sampled)
    column = {"prompt_column": prompts.get("prompt_column")}
    labelled = plan.add("labelled", ["annotate", candidates], {**column, **recipe.annotate})
    if recipe.check is not None:
        plan.add(
            "check",
            ["check", labelled],
            recipe.check,
            ".json",
            "Look at the labels with 'drsow report', or set other bounds in check. ",
            ("--json", OUTPUT),
        )
    if recipe.publish is not None:
        publish = dict(recipe.publish)
        to = publish.pop("to")
        dry = publish.pop("dry_run", False)
        if dry:
            plan.add("card", ["publish", labelled, to], publish, into=("--dry-run", OUTPUT))
        else:
            plan.add("published", ["publish", labelled, to], publish, into=())
    return labelled


def _tuned(plan: Plan, recipe: Recipe, arm: str, seed: int, labelled: Path) -> Path:
    """Add the training of an arm."""
    options = {**policy_of(recipe), **(recipe.tune or {}), "seed": seed}
    data: Any = labelled
    if arm == HUMAN:
        human = dict(recipe.human or {})
        data = human.pop("data")
        options |= human
    elif arm != LABELS[0]:
        options["labels"] = arm
    return plan.add(f"tuned {arm} {seed}", ["tune", data], options)


def _again(
    plan: Plan, recipe: Recipe, prompts: tuple[Any, Mapping[str, Any]], tuned: Path, seed: int
) -> Path:
    """Add a second round: the tuned model samples, and is the strong side over its start."""
    data, columns = prompts
    policy = _opened(recipe, LABELS[0], tuned)
    sampled = {**policy, **columns, **sampled_here(recipe)}
    candidates = plan.add(f"candidates again {seed}", ["generate", data], sampled)
    pair = {**of_side("strong", policy), **of_side("weak", policy_of(recipe))}
    own = {name: value for name, value in recipe.annotate.items() if name not in _OF_PAIR}
    column = {"prompt_column": columns.get("prompt_column")}
    labelled = plan.add(
        f"labelled again {seed}", ["annotate", candidates], {**column, **pair, **own}
    )
    options = {**policy, **(recipe.tune or {}), "seed": seed}
    if options.get("lora_rank"):
        options["merge"] = True
    return plan.add(f"tuned again {seed}", ["tune", labelled], options)


def _judge(plan: Plan, recipe: Recipe) -> str | None:
    """Add the training of the judge, where there is one to train, and return its model."""
    if recipe.judge is None:
        return None
    options = dict(recipe.judge)
    if "model" in options:
        return str(options["model"])
    pairs = options.pop("pairs")
    start = {} if "policy" in options else policy_of(recipe)
    whole = {**start, "method": "reward", **options}
    return str(plan.add("judge", ["tune", pairs], whole))


def _measure(
    plan: Plan,
    recipe: Recipe,
    arm: tuple[str, int],
    tuned: Path | None,
    held_out: Path | None,
    judge: str | None,
) -> None:
    """Add what measures a policy, if the recipe says so: its answers, and their figures."""
    if held_out is None:
        return
    evaluate, start = dict(recipe.evaluate or {}), policy_of(recipe)
    pairs = {name: evaluate.pop(name, None) for name in OF_PAIRS}
    policy = start if tuned is None else _opened(recipe, arm[0], tuned)
    column = {"prompt_column": recipe.prompts.get("prompt_column")}
    # One seed for all: answers differ by the policy, not by the luck of the draw.
    generate = {n: v for n, v in sampled_here(recipe).items() if n not in ("candidates", "seed")}
    sampled = {"candidates": 1, **generate, **evaluate, "seed": 0, "max_cut": 1}
    name = " ".join(map(str, arm)) if tuned is not None else START
    answers = plan.add(f"answers {name}", ["generate", held_out], {**policy, **column, **sampled})
    pair = {n: v for n, v in (recipe.grpo or recipe.annotate).items() if n in PAIR_OPTIONS}
    options: dict[str, Any] = {**pair, **column, **judge_options(recipe, judge)}
    if tuned is not None:
        options |= {**pairs, **named(policy), **of_side("start", start)}
    elif judge is not None:
        options |= pairs  # which say what the judge is worth
    file = plan.add(f"measured {name}", ["evaluate", answers], options, ".json")
    plan.measured.append(Measured(*arm, file))


def _opened(recipe: Recipe, arm: str, tuned: Path) -> dict[str, Any]:
    """Return the options by which a trained policy is opened: a model, or an adapter of one."""
    options = policy_of(recipe)
    trained = recipe.grpo or recipe.tune or {}
    if trained.get("lora_rank") and not trained.get("merge") and arm != SECOND_ROUND:
        return {**options, "adapter": str(tuned)}
    for name in ("revision", "adapter", "adapter_revision"):  # which are in the model as trained
        options.pop(name, None)
    return {**options, "policy": str(tuned)}
