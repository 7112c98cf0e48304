"""The page on pipelines has what its script computes, and that is the arithmetic it says."""

from __future__ import annotations

import json
from pathlib import Path

import pipeline
import pytest

from drsow_plugin.pipeline.values import Recipe

PAGE = Path(__file__).parents[1] / "docs" / "pipeline.md"


def test_the_page_has_the_costs_of_the_script() -> None:
    assert pipeline.costs(pipeline.Assumed()) in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("tune", "training"),
    [
        ({"method": "simpo", "lora_rank": 8}, 4),
        ({"method": "simpo"}, 6),
        ({"method": "dpo", "lora_rank": 8}, 6),
        ({}, 8),
    ],
)
def test_hours_are_operations_over_speed(tune: dict[str, object], training: int) -> None:
    given = pipeline.Assumed(
        prompts=1000, prompt=100, response=200, policy=2e9, pair=1e9, judge=3e9, labelled=50,
        peak=1e15, mfu=0.5, decoding=1000.0,
    )  # fmt: skip
    recipe = Recipe(
        "x",
        {"policy": "p"},
        {"data": "d", "held_out": 10},
        generate={"candidates": 4},
        tune=tune,
        labels=("given", "random"),
        seeds=(0, 1, 2),
    )
    found = {one.step: one for one in pipeline.hours_of(recipe, given)}
    speed = 5e14 * 3600
    assert found["candidates"].hours == pytest.approx(1000 * 4 * 200 / 1000 / 3600)
    # Both models read a prompt once for its four candidates.
    assert found["labelled"].hours == pytest.approx(2 * 2e9 * 1000 * (100 + 4 * 200) / speed)
    tuned = 6 * training * 2e9 * 1000 * 2 * 300 / speed
    assert (found["tuned"].times, found["tuned"].hours) == (6, pytest.approx(tuned))
    one = 10 * 200 / 1000 / 3600 + 2 * (2e9 + 3e9 + 4e9) * 10 * 300 / speed
    one += 2 * 2e9 * 50 * 2 * 300 / speed
    assert found["answers and measured"].hours == pytest.approx(7 * one)


def test_figures_of_a_run_are_shown_with_the_minutes_of_its_steps(tmp_path: Path) -> None:
    seconds = {"tuned given 0": 60.0, "tuned given 1": 120.0, "prompts": 30.0}
    whole = {"seconds": seconds, "recipe": "x", "seeds": [0, 1], "rounds": 1}
    (tmp_path / "results.json").write_text(json.dumps(whole), encoding="utf-8")
    (tmp_path / "results.md").write_text("THE TABLE\n", encoding="utf-8")
    text = pipeline.figures([tmp_path])
    assert text.startswith("**Recipe `x`, seeds 0, 1**\n\nTHE TABLE\n")
    assert "| tuned | 2 | 3.0 |" in text and text.endswith("4 minutes in all.")
    whole["seconds"] = {**seconds, "card": None}  # which was run by hand
    (tmp_path / "results.json").write_text(json.dumps(whole), encoding="utf-8")
    assert "minutes" not in pipeline.figures([tmp_path])
