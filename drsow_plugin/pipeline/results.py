"""The end of a pipeline: its figures as a table and as JSON."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from drsow_plugin.bootstrap import Estimate
from drsow_plugin.cache import storage_errors
from drsow_plugin.pipeline.evaluation import Evaluation
from drsow_plugin.pipeline.figures import figures_of, judge_accuracy
from drsow_plugin.pipeline.finished import seconds_of
from drsow_plugin.pipeline.plan import START
from drsow_plugin.pipeline.steps import Plan
from drsow_plugin.pipeline.tables import as_json, as_seeds, as_table
from drsow_plugin.pipeline.values import Recipe


def write_results(recipe: Recipe, plan: Plan) -> tuple[str, Path]:
    """Write ``results.json`` and ``results.md``.

    Returns:
        The table, and where it is. Without an evaluation the steps alone are in them.

    Raises:
        DataError: A measured file is not what it should be.
        StorageError: There is no room.
    """
    read = [(measured, Evaluation.read(measured.file)) for measured in plan.measured]
    start = next((evaluation for measured, evaluation in read if measured.arm == START), None)
    arms: dict[str, list[Evaluation]] = defaultdict(list)
    for measured, evaluation in read:
        if measured.arm != START:
            arms[measured.arm].append(evaluation)
    found = figures_of(start, arms) if start is not None else []
    judge = judge_accuracy(start) if start is not None else None
    seconds = {step.name: seconds_of(plan, step) for step in plan.steps}
    more: dict[str, Any] = {
        "kind": "pipeline",
        "recipe": recipe.name,
        "judge_accuracy": None if judge is None else asdict(judge),
        "seeds": list(recipe.seeds),
        "rounds": recipe.rounds,
        "seconds": seconds,
        "measured": [{"arm": m.arm, "seed": m.seed, "file": m.file.name} for m in plan.measured],
    }
    table = as_table(found) if found else "Nothing was measured: the recipe has no evaluate."
    if judge is not None:
        right = f"{_share(judge)} % of {judge.n} pairs"
        table += f"\n\nThe judge prefers what people preferred in {right}."
    if found:
        table += f"\n\nBy seed, and less the arm of random labels:\n\n{as_seeds(found)}"
    for measured, evaluation in read:
        if evaluation.left_out:
            left = ", ".join(f"{count:,} {why}" for why, count in evaluation.left_out.items())
            table += f"\n\nNot measured, {measured.arm} (seed {measured.seed}): {left}."
    place = plan.folder / "results.md"
    with storage_errors(f"{plan.folder} cannot be written", "Make room, and run again."):
        (plan.folder / "results.json").write_text(as_json(found, more), encoding="utf-8")
        place.write_text(table + "\n", encoding="utf-8")
    return table, place


def _share(found: Estimate) -> str:
    text = f"{100 * found.value:.1f}"
    if found.low is not None and found.high is not None:
        text += f" ({100 * found.low:.1f} to {100 * found.high:.1f})"
    return text
