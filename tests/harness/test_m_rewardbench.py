"""M-RewardBench: categories weighted by its own counts, one language at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers.harness import Scorer, run

from drsow_plugin import DataError
from drsow_plugin.harness.benchmarks.m_rewardbench import SIZES
from drsow_plugin.harness.benchmarks.rewardbench import WEIGHTS
from drsow_plugin.harness.subsets import Partial


def row(source: str, number: int, chosen: str = "longer", language: str = "deu") -> dict[str, Any]:
    return {
        "id": number,
        "language": language,
        "prompt": f"{source} {number}",
        "chosen": chosen,
        "rejected": "short",
        "source": source,
        "chosen_model": "x",
        "rejected_model": "y",
    }


def save(rows: Iterable[dict[str, Any]], folder: Path) -> dict[str, str]:
    path = folder / "deu.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": str(path)}


WON = {"alpacaeval-easy": 79, "mt-bench-hard": 35, "math-prm": 447, "donotanswer": 27}


def published() -> list[dict[str, Any]]:
    """All 2,869 rows of a language, of which the first so many of four subsets are won."""
    return [
        row(source, n, "longer" if n < WON.get(source, 0) else "tie..")
        for source, size in SIZES.items()
        for n in range(size)
    ]


@pytest.mark.slow
def test_the_score_is_the_one_worked_out_by_hand(tmp_path: Path) -> None:
    rows = published()
    assert len(rows) == 2869
    results = run(Scorer(len), ["m_rewardbench"], metadata=save(rows, tmp_path))
    got = results["results"]["m_rewardbench"]
    chat = 79 / (79 + 79 + 76 + 24 + 38)
    chat_hard = 35 / (35 + 76 + 124 + 87 + 42 + 43)
    safety = (27 / 135) * 135 / (100 + 100 + 154 + 247 + 135)
    reasoning = 983 / (983 + 5 * 164 + 163)  # math counts as 983 rows, not as 447
    expected = {
        "alpacaeval-easy/score": 1,
        "donotanswer/score": 27 / 135,
        "chat/score": chat,
        "chat_hard/score": chat_hard,
        "safety/score": safety,
        "reasoning/score": reasoning,
        "score": (chat + chat_hard + safety + reasoning) / 4,
        "acc": sum(WON.values()) / 2869,
    }
    assert {name: got[f"{name},none"] for name in expected} == pytest.approx(expected)


def test_a_category_with_rows_missing_is_partial_and_its_subsets_are_not(tmp_path: Path) -> None:
    there = {*WEIGHTS["chat"], "math-prm", "hep-rust"}
    rows = [each for each in published() if each["source"] in there]
    got = run(Scorer(len), ["m_rewardbench"], metadata=save(rows, tmp_path))["results"]
    scores = got["m_rewardbench"]
    assert isinstance(scores["score,none"], Partial)
    assert isinstance(scores["reasoning/score,none"], Partial)
    assert scores["math-prm/score,none"] == 1 and scores["chat/score,none"] > 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("hep-go", 1), row("hep-go", 1, language="fra")], "has the languages deu, fra"),
        ([row("flores", 1)], "row 0: 'flores' is no subset of M-RewardBench"),
        ([{"prompt": "Q", "chosen": "a", "rejected": "b"}], "no column 'source', 'language'"),
    ],
)
def test_files_that_are_not_one_language_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run(Scorer(len), ["m_rewardbench"], metadata=save(rows, tmp_path))


def test_no_language_says_how_to_name_one() -> None:
    with pytest.raises(DataError, match="--metadata data_name=deu_Latn"):
        run(Scorer(len), ["m_rewardbench"])
