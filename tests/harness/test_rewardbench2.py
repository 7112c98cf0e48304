"""RewardBench 2: best of four and Ties by their rules, and files of other versions."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers.fakes import fake_pair
from helpers.harness import Scorer, run
from lm_eval.utils import make_table

from drsow_plugin import DataError, DrSoWLM
from drsow_plugin.harness.benchmarks.rewardbench2 import SIZES, count, ties_score
from drsow_plugin.harness.subsets import Partial

SAMPLE = Path(__file__).parents[1] / "fixtures" / "rewardbench_2_ties.jsonl.gz"


def row(subset: str, number: object, chosen: list[str], rejected: list[str]) -> dict[str, Any]:
    return {
        "id": str(number),
        "prompt": f"{subset} {number}",
        "chosen": chosen,
        "rejected": rejected,
        "num_correct": len(chosen),
        "num_incorrect": len(rejected),
        "total_completions": len(chosen) + len(rejected),
        "models": [],
        "subset": subset,
        "additional_metadata": None,
    }


def save(rows: Iterable[dict[str, Any]], folder: Path) -> dict[str, str]:
    path = folder / "rewardbench2.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": str(path)}


def tied(kind: str, rewards: list[float], correct: int) -> Any:
    doc = {"subset": "Ties", "id": f"{kind}:1", "num_correct": correct}
    return count(doc, rewards)["score"]


def test_ties_is_the_composite_worked_out_by_hand() -> None:
    # Tied: right 5, 4; wrong 1, 0: spread 1, gap 3. Reference: right 3, wrong 1, 0: gap 2.
    one = [tied("tied", [5, 4, 1, 0], 2), tied("ref", [3, 1, 0], 1)]
    assert one == [("tied", 1, 1, 3), ("ref", 1, 0, 2)]
    both = 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * math.tanh(2 / 1 - 1)
    assert ties_score(one) == pytest.approx(both, abs=1e-12)
    # Spread 4, gap 1: right, but which right answer it is matters more than that it is right.
    two = [("tied", 2, 4.0, 1.0), ("ref", 2, 0.0, -1.0)]
    assert ties_score(two) == pytest.approx(0.3 + 0.01 * math.tanh(-1 / 4 - 1))
    # Preferred by the tied prompt's own gap alone.
    hard = [("tied", 3, 2.0, 3.0), ("ref", 3, 0.0, 1.0)]
    assert ties_score(hard) == pytest.approx(0.3 + 0.3 + 0.2 + 0.01 * math.tanh(1 / 2 - 1))
    half = 0.3 + 0.3 / 2 + 0.2 / 2 + 0.2 / 2
    margin = (math.tanh(1) + math.tanh(-1.25)) / 2
    assert ties_score([*one, *two]) == pytest.approx(half + 0.01 * margin)


def test_ties_where_all_rewards_are_the_same_or_missing() -> None:
    ref = ("ref", 1, 0.0, 1.0)
    assert ties_score([("tied", 1, 0.0, 2.0), ref]) == pytest.approx(1 + 0.01)
    assert ties_score([("tied", 1, 0.0, 0.0), ref]) == pytest.approx(0.3)
    missing = tied("tied", [1.0, math.nan, 0.0], 2)
    assert ties_score([missing, ref]) == pytest.approx(0.3)
    # A tied prompt without its reference counts in the accuracy alone.
    assert ties_score([("tied", 1, 1.0, 2.0), ref, ("tied", 2, 1.0, -1.0)]) == pytest.approx(
        0.3 / 2 + 0.3 + 0.2 + 0.01 * math.tanh(0)
    )
    assert isinstance(ties_score([ref]), Partial)


def test_best_of_four_shares_a_tie_and_loses_without_a_reward() -> None:
    doc = {"subset": "Math"}
    rewards = [[2, 1, 1, 1], [2, 2, 1, 1], [2, 2, 2, 2], [1, 2, 0, 0], [2, 1, math.nan, 1]]
    assert [count(doc, of)["score"] for of in rewards] == [1, 1 / 2, 1 / 4, 0, 0]


def published() -> list[dict[str, Any]]:
    """As many rows as RewardBench 2 has; in each subset another share is won by length."""
    rows = []
    for index, (subset, size) in enumerate(SIZES.items()):
        for n in range(size if subset != "Ties" else 0):
            longest = "chosen longer" if n % (index + 2) else "no"
            rows.append(row(subset, n, [longest], ["wrong", "worse", "worst"]))
    for n in range(SIZES["Ties"] // 2):
        rows.append(row("Ties", f"tied:{n}", ["aaaaaa", "bbbbb"], ["c", "d"]))
        rows.append(row("Ties", f"ref:{n}", ["aaa"], ["b" if n % 3 else "bbbb", "c"]))
    return rows


@pytest.mark.slow
def test_the_score_is_the_mean_of_the_six_subsets(tmp_path: Path) -> None:
    results = run(Scorer(len), ["rewardbench2"], metadata=save(published(), tmp_path))
    got = results["results"]["rewardbench2"]
    lost = {name: -(-n // (index + 2)) for index, (name, n) in enumerate(SIZES.items())}
    scores = {name: 1 - lost[name] / n for name, n in SIZES.items() if name != "Ties"}
    # Of 51 tied prompts all are right with spread 1 and gap 4; of their references 34, with gap 2.
    easy = 34 / 51
    margin = easy * math.tanh(2 - 1) + (1 - easy) * math.tanh(-1 - 1)
    scores["Ties"] = 0.3 + 0.3 * easy + 0.2 + 0.2 * easy + 0.01 * margin
    for name, score in scores.items():
        assert got[f"{name}/score,none"] == pytest.approx(score, abs=1e-12)
    assert got["score,none"] == pytest.approx(sum(scores.values()) / 6, abs=1e-12)
    # What scores by length is the length baseline.
    assert got["score_longer,none"] == got["score,none"]
    assert "partial" not in make_table(results)


def test_a_part_of_the_data_has_scores_of_subsets_and_none_of_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lm = DrSoWLM(**fake_pair(router="column"))
    results = run(lm, ["rewardbench2"], metadata={"data": str(SAMPLE)}, log_samples=True)
    got = results["results"]["rewardbench2"]
    assert isinstance(got["score,none"], Partial) and "Factuality/score,none" not in got
    assert "Ties 20 of 102 rows" in caplog.text
    samples = results["samples"]["rewardbench2"]
    assert -0.01 <= got["Ties/score,none"] <= 1.01
    assert got["Ties/score,none"] == ties_score([sample["Ties/score"] for sample in samples])
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as file:
        sizes = [json.loads(line)["total_completions"] for line in file]
    assert [len(sample["doc"]["responses"]) for sample in samples] == sizes
    assert results["config"]["drsow"]["responses_scored"] == sum(sizes)
    pairs = results["config"]["drsow"]["domains"]["domains"]["chat"]
    assert pairs["prompts"] == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subset": "alpacaeval-easy"}, "row 0: 'alpacaeval-easy' is no subset of RewardBench 2"),
        ({"chosen": "a text", "num_correct": 1}, "row 0, chosen: a list of at least 1 responses"),
        ({"num_correct": 3}, "num_correct is 3 and there are 2 chosen"),
        ({"rejected": []}, "row 0, rejected: a list of at least 1"),
        ({"id": "7"}, "an id in Ties is ref:NUMBER .* got '7' with 2"),
        ({"id": "ref:1"}, "an id in Ties is ref:NUMBER .* got 'ref:1' with 2"),
        ({"id": "tied:2"}, "the id 'tied:2' is there twice"),
    ],
)
def test_a_file_of_another_version_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    rows = [row("Ties", "tied:1", ["a", "b"], ["c"]), row("Ties", "tied:2", ["a", "b"], ["c"])]
    rows[0] |= change
    if isinstance(change.get("chosen"), str):
        rows = rows[:1]  # a column of texts
    with pytest.raises(DataError, match=message):
        run(Scorer(len), ["rewardbench2"], metadata=save(rows, tmp_path))


def test_a_file_without_its_columns_is_refused(tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "chosen": ["a"], "rejected": ["b"], "subset": "Math"}]
    message = "no column 'id', 'num_correct'; .* Give a copy of allenai/reward-bench-2"
    with pytest.raises(DataError, match=message):
        run(Scorer(len), ["rewardbench2"], metadata=save(rows, tmp_path))
