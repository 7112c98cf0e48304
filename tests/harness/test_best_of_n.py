"""Rated candidates: what is picked, how good it is, and data that cannot be used."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny
from helpers.fakes import fake_pair
from helpers.harness import Scorer, run
from lm_eval.models.huggingface import HFLM

from drsow_plugin import DataError, DrSoWLM
from drsow_plugin.harness.benchmarks.best_of_n import rated_metrics

ROWS = [
    {"prompt": "Name a prime.", "responses": ["aa", "b", "cccc"], "ratings": [3, 5, 1]},
    {"prompt": "And one more.", "responses": ["d", "ee"], "ratings": [0.5, 2.5]},
]


def save(rows: list[dict[str, Any]], folder: Path) -> dict[str, str]:
    path = folder / "rated.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": str(path)}


def test_the_metrics_are_what_they_are_by_hand(tmp_path: Path) -> None:
    # The first row's second best is picked, above the best; in the second row both tie.
    rewards = {"aa": -1.0, "b": -2.0, "cccc": -3.0, "d": -1.5, "ee": -1.5}
    results = run(Scorer(rewards.__getitem__), ["best_of_n"], metadata=save(ROWS, tmp_path))
    got = results["results"]["best_of_n"]
    expected = {
        "acc": 0.0,
        "acc_tie_half": (0 + 1 / 2) / 2,
        "acc_longer": (0 + 1) / 2,
        "acc_pairs": (2 / 3 + 0) / 2,  # 5 > 3 is lost, 5 > 1 and 3 > 1 are won; a tie is lost
        "margin": (-2.0 - -1.0 + 0) / 2,
        "ties": 1,
        "overflow": 0,
        "rating": (3 + (0.5 + 2.5) / 2) / 2,
        "rating_best": (5 + 2.5) / 2,
        "rating_random": (3 + 1.5) / 2,
        "rating_longest": (1 + 2.5) / 2,
    }
    assert {name: got[f"{name},none"] for name in expected} == pytest.approx(expected)


def test_a_missing_reward_picks_at_random_and_wins_nothing() -> None:
    results = [(0.0, False), (math.nan, False), (-1.0, False)]
    got = rated_metrics(ROWS[0], results)
    assert (got["acc"], got["acc_tie_half"], got["overflow"]) == (0.0, 1 / 3, 1)
    assert got["rating"] == 3 and got["acc_pairs"] == pytest.approx(1 / 3)
    assert math.isnan(got["margin"])


def test_several_best_are_as_good_as_one() -> None:
    row = {"responses": ["a", "bb", "c"], "ratings": [1, 1, 0]}
    got = rated_metrics(row, [(0.0, False), (-9.0, False), (-1.0, False)])
    assert got["acc"] == 1 and got["margin"] == 1.0 and got["acc_pairs"] == 1 / 2
    assert rated_metrics(row, [(-1.0, False)] * 3)["acc_tie_half"] == 2 / 3


def test_rows_rated_the_same_throughout_are_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [*ROWS, {"prompt": "Q", "responses": ["a", "b"], "ratings": [1, 1]}]
    results = run(Scorer(len), ["best_of_n"], metadata=save(rows, tmp_path))
    assert results["n-samples"]["best_of_n"]["effective"] == 2
    assert "in 1 of 3 rows all candidates are rated the same; they are left out" in caplog.text


@pytest.mark.parametrize("ending", ["csv", "messages"])
def test_candidates_are_read_from_tables_and_messages_and_columns_can_be_named(
    tmp_path: Path, ending: str
) -> None:
    if ending == "csv":
        (tmp_path / "r.csv").write_text('q,answers,stars\nQ,"[""a"", ""bb""]","[1, 2]"\n')
    else:
        turns = [{"role": "assistant", "content": text} for text in ("a", "bb")]
        row = {"q": [{"role": "user", "content": "Q"}], "answers": turns, "stars": [1, 2]}
        (tmp_path / "r.jsonl").write_text(json.dumps(row) + "\n")
    data = tmp_path / ("r.csv" if ending == "csv" else "r.jsonl")
    columns = {"prompt_column": "q", "responses_column": "answers", "ratings_column": "stars"}
    results = run(Scorer(len), ["best_of_n"], metadata={"data": str(data), **columns})
    assert results["results"]["best_of_n"]["rating,none"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratings": None}, r"row 1: ratings are a list with one number for each of the 2"),
        ({"ratings": [1.0]}, "for each of the 2 responses, got 1. Rate every response"),
        ({"ratings": [1.0, None]}, "row 1: a rating is a number, got None"),
        ({"responses": ["one"], "ratings": [1]}, "row 1, responses: a list of at least 2"),
        ({"responses": ["one", None]}, "row 1, responses, response 1: a response is a text"),
        ({"prompt": None}, "row 1: a prompt is a string or a list"),
    ],
)
def test_a_row_that_is_not_rated_candidates_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run(Scorer(len), ["best_of_n"], metadata=save([ROWS[0], {**ROWS[1], **change}], tmp_path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "Q", "responses": ["a", "b"]}], "no column 'ratings'; .* ratings_column=…"),
        ([{**ROWS[1], "ratings": [1, 1]}], "no row has candidates with different ratings"),
    ],
)
def test_candidates_without_ratings_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run(Scorer(len), ["best_of_n"], metadata=save(rows, tmp_path))
    with pytest.raises(DataError, match="--metadata data=FILE"):
        run(Scorer(len), ["best_of_n"])


def test_rewards_of_a_pair_of_models_and_likelihoods_of_hf_pick_too(tmp_path: Path) -> None:
    metadata = save(ROWS, tmp_path)
    lm = DrSoWLM(**fake_pair())
    results = run(lm, ["best_of_n"], metadata=metadata, log_samples=True)
    ours = [
        [reward.reward for reward in lm.drsow.score([row["prompt"]] * len(texts), texts)]
        for row in ROWS
        if (texts := row["responses"])
    ]
    for sample, row, rewards in zip(results["samples"]["best_of_n"], ROWS, ours, strict=True):
        best = max(range(len(rewards)), key=lambda index: rewards[index] or 0.0)
        assert sample["rating"] == row["ratings"][best]  # type: ignore[index]
    hf = HFLM(pretrained=tiny.save(tmp_path / "m", seed=0, kind="bytes"), device="cpu")
    assert math.isfinite(
        run(hf, ["best_of_n"], metadata=metadata)["results"]["best_of_n"]["margin,none"]
    )


def test_each_domain_counts_the_comparisons_of_its_candidates(tmp_path: Path) -> None:
    rows = [{**row, "domain": "reasoning"} for row in ROWS]
    lm = DrSoWLM(**fake_pair(router="column", overflow="skip"))
    results = run(lm, ["best_of_n"], metadata=save(rows, tmp_path), log_samples=True)
    of = results["config"]["drsow"]["domains"]["domains"]["reasoning"]
    samples = results["samples"]["best_of_n"]
    assert (of["prompts"], of["pairs"]) == (2, 4)
    assert of["acc"] == pytest.approx(sum(s["acc_pairs"] for s in samples) / 2)
