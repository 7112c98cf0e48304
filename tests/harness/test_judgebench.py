"""JudgeBench: right in both orders, by source and in all, and files of other pairs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers.fakes import fake_pair
from helpers.harness import Scorer, run

from drsow_plugin import DataError, DrSoWLM
from drsow_plugin.harness.benchmarks.judgebench import SIZES, judged
from drsow_plugin.harness.subsets import Partial

NAMES = {"mmlu-pro": "mmlu-pro-law"}


def row(source: str, number: int, right: str, wrong: str) -> dict[str, Any]:
    a, b = (right, wrong) if number % 2 else (wrong, right)
    return {
        "pair_id": f"{source}-{number}",
        "original_id": str(number),
        "source": NAMES.get(source, source),
        "question": f"{source} {number}",
        "response_model": "gpt-4o-2024-05-13",
        "response_A": a,
        "response_B": b,
        "label": "A>B" if number % 2 else "B>A",
    }


def save(rows: Iterable[dict[str, Any]], folder: Path) -> dict[str, str]:
    path = folder / "judgebench.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": str(path)}


def test_a_pair_with_one_reward_is_judged_wrong_in_one_order_and_so_not_correct() -> None:
    assert [judged(pair) for pair in ((2.0, 1.0), (1.0, 2.0), (1.0, 1.0))] == [1, 0, 0]
    assert judged((math.nan, 1.0)) == judged((1.0, math.nan)) == 0


def test_the_score_is_the_share_of_all_pairs_and_not_the_mean_of_sources(tmp_path: Path) -> None:
    # Of each source's pairs the first third is won, the second tied and the rest lost.
    texts = [("right", "no"), ("same", "even"), ("a", "wrong")]
    sizes = SIZES["gpt"]
    rows = [row(s, n, *texts[n * 3 // size]) for s, size in sizes.items() for n in range(size)]
    assert len(rows) == 350 and sum(SIZES["claude"].values()) == 270
    results = run(Scorer(len), ["judgebench_gpt"], metadata=save(rows, tmp_path))
    got = results["results"]["judgebench_gpt"]
    won = {source: -(-size // 3) for source, size in sizes.items()}
    assert won == {"mmlu-pro": 52, "livebench-reasoning": 33, "livebench-math": 19} | {
        "livecodebench": 14
    }
    for source, size in sizes.items():
        assert got[f"{source}/score,none"] == pytest.approx(won[source] / size)
    assert got["score,none"] == pytest.approx(118 / 350)
    assert got["score_longer,none"] == got["acc,none"] == pytest.approx(118 / 350)


def test_a_part_runs_with_a_pair_of_models_and_is_of_the_domain_reasoning(tmp_path: Path) -> None:
    lm = DrSoWLM(**fake_pair(router="column", max_length=4096))
    rows = [row("livecodebench", n, "right", "wrong") for n in range(4)]
    results = run(lm, ["judgebench_gpt"], metadata=save(rows, tmp_path))
    got = results["results"]["judgebench_gpt"]
    assert isinstance(got["score,none"], Partial)
    assert got["livecodebench/score,none"] == got["acc,none"]
    assert {*results["config"]["drsow"]["domains"]["domains"]} == {"reasoning"}


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("gpt", {"label": "A=B"}, "row 0: a label is A>B or B>A, got 'A=B'"),
        ("gpt", {"source": "aime"}, "'aime' is no subset of JudgeBench, which has mmlu-pro"),
        ("gpt", {"response_A": None}, "row 0: chosen and rejected are two strings"),
        (
            "claude",
            {},
            "are of 'gpt-4o-2024-05-13', .* pairs of claude. Use --tasks judgebench_gpt",
        ),
    ],
)
def test_a_file_of_other_pairs_is_refused(
    tmp_path: Path, task: str, change: dict[str, Any], message: str
) -> None:
    metadata = save([{**row("mmlu-pro", 1, "right", "wrong"), **change}], tmp_path)
    with pytest.raises(DataError, match=message):
        run(Scorer(len), [f"judgebench_{task}"], metadata=metadata)


def test_a_file_without_its_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'pair_id', .* Give a copy of ScalerLab"):
        run(Scorer(len), ["judgebench_gpt"], metadata=save([{"question": "Q"}], tmp_path))
