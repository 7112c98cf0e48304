"""PPE's human preferences: accuracy without ties, by kind of prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.fakes import fake_pair
from helpers.harness import Scorer, run

from drsow_plugin import DataError, DrSoWLM
from drsow_plugin.harness.benchmarks.ppe import KINDS


def row(n: int, winner: str, first: str, second: str, *kinds: str) -> dict[str, Any]:
    return {
        "question_id": f"q{n}",
        "model_a": "a",
        "model_b": "b",
        "winner": winner,
        "prompt": f"Question {n}?",
        "response_1": first,
        "response_2": second,
        "language": "English",
        **{kind: kind in kinds for kind in KINDS},
    }


ROWS = [
    row(0, "model_a", "longer", "short", "hard_prompt", "is_code"),
    row(1, "model_b", "longer", "short", "hard_prompt"),
    row(2, "model_b", "short", "longer"),
    row(3, "tie", "longer", "short", "easy_prompt"),
    row(4, "tie (bothbad)", "longer", "short", "math_prompt"),
    row(5, "model_a", "same", "even", "if_prompt", "hard_prompt"),
]


def save(rows: list[dict[str, Any]], folder: Path) -> dict[str, str]:
    path = folder / "ppe.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": str(path)}


def test_accuracy_is_over_the_pairs_with_a_winner_and_over_those_of_each_kind(
    tmp_path: Path,
) -> None:
    results = run(Scorer(len), ["ppe_preference"], metadata=save(ROWS, tmp_path))
    got = results["results"]["ppe_preference"]
    assert results["n-samples"]["ppe_preference"]["effective"] == 4
    expected = {
        "acc": 2 / 4,
        "acc_tie_half": 2.5 / 4,
        "hard_prompt/acc": 1 / 3,
        "hard_prompt/acc_tie_half": 1.5 / 3,
        "is_code/acc": 1,
        "if_prompt/acc": 0,
        "if_prompt/acc_longer": 0.5,
    }
    assert {name: got[f"{name},none"] for name in expected} == pytest.approx(expected)
    assert "easy_prompt/acc,none" not in got and "math_prompt/acc,none" not in got


def test_prompts_have_domains(tmp_path: Path) -> None:
    lm = DrSoWLM(**fake_pair(router="column", max_length=4096))
    results = run(lm, ["ppe_preference"], metadata=save(ROWS, tmp_path))
    domains = results["config"]["drsow"]["domains"]["domains"]
    assert {name: of["pairs"] for name, of in domains.items()} == {"chat": 3, "reasoning": 1}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0, "A", "a", "b")], "row 0: a winner is model_a, model_b or a tie, got 'A'"),
        ([row(0, "tie", "a", "b")], "all rows are ties"),
        ([{**row(0, "model_a", "a", "b"), "response_2": None}], "row 0: chosen and rejected"),
        ([{"prompt": "Q"}], "no column 'question_id', .* Give a copy of lmarena-ai/PPE"),
    ],
)
def test_a_file_of_another_version_is_refused(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run(Scorer(len), ["ppe_preference"], metadata=save(rows, tmp_path))
