"""Columns that follow from what was fitted: a probability, and length-controlled rewards."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.commands import wrong
from helpers.fakes import fake_annotator
from helpers.labelling import label
from helpers.preferences import candidates, pairs

from drsow_plugin import Annotator, ConfigError

FITTED = {"margin_temperature": 7.5, "length_slope": -0.25}


def run(rows: list[dict[str, Any]], folder: Path, **options: Any) -> tuple[Any, Annotator]:
    annotator = fake_annotator(**options)
    data = datasets.Dataset.from_list(rows)
    return annotator.run(data, cache_dir=str(folder), keep_unusable=True), annotator


def test_pairs_get_a_probability_and_controlled_rewards(tmp_path: Path) -> None:
    rows = [*pairs(12), {"prompt": None, "chosen": "a", "rejected": "b", "id": 12}]
    found, annotator = run(rows, tmp_path, **FITTED)
    for row in found.select(range(12)):
        margin = row["drsow_margin"]
        assert row["drsow_probability"] == pytest.approx(1 / (1 + math.exp(-margin / 7.5)))
        for side in ("chosen", "rejected"):
            reward, tokens = row[f"drsow_{side}_reward"], row[f"drsow_{side}_strong_tokens"]
            assert row[f"drsow_{side}_controlled_reward"] == reward + 0.25 * tokens
        more = row["drsow_chosen_strong_tokens"] - row["drsow_rejected_strong_tokens"]
        assert row["drsow_controlled_margin"] == pytest.approx(margin + 0.25 * more)
    assert found[12]["drsow_probability"] is found[12]["drsow_controlled_margin"] is None
    assert annotator.report is not None
    assert annotator.report.options["margin_temperature"] == 7.5
    assert "temperature" in annotator.report.columns["drsow_probability"]


def test_exchanged_pairs_have_the_probability_of_what_is_chosen_now(tmp_path: Path) -> None:
    found, _ = run(pairs(12), tmp_path, relabel="swap", **FITTED)
    assert any(found["drsow_swapped"]) and min(found["drsow_probability"]) >= 0.5


def test_candidates_and_single_responses_have_theirs(tmp_path: Path) -> None:
    found, _ = run(candidates(6), tmp_path, **FITTED)
    for row in found:
        controlled = [
            reward + 0.25 * tokens
            for reward, tokens in zip(row["drsow_rewards"], row["drsow_strong_tokens"], strict=True)
        ]
        assert row["drsow_controlled_rewards"] == controlled
        chosen, rejected = row["drsow_chosen_index"], row["drsow_rejected_index"]
        assert row["drsow_controlled_margin"] == controlled[chosen] - controlled[rejected]
        odds = math.exp(row["drsow_margin"] / 7.5)
        assert row["drsow_probability"] == pytest.approx(odds / (1 + odds))
    single, _ = run([{"prompt": "q", "response": "a b"}], tmp_path, length_slope=2.0)
    expected = single[0]["drsow_reward"] - 2 * single[0]["drsow_strong_tokens"]
    assert single[0]["drsow_controlled_reward"] == expected
    mapped = label(candidates(6), fake_annotator(**FITTED))
    assert mapped["drsow_probability"] == found["drsow_probability"]


def test_without_them_no_column_is_added_and_no_reward_is_computed_again(tmp_path: Path) -> None:
    plain, first = run(pairs(12), tmp_path)
    fitted, second = run(pairs(12), tmp_path, **FITTED)
    added = set(fitted.column_names) - set(plain.column_names)
    assert added == {
        *("drsow_probability", "drsow_controlled_margin"),
        *(f"drsow_{side}_controlled_reward" for side in ("chosen", "rejected")),
    }
    assert fitted.select_columns(plain.column_names).to_dict() == plain.to_dict()
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"margin_temperature": 0}, "margin_temperature is a number of nats, more than 0, got 0"),
        ({"margin_temperature": "inf"}, "margin_temperature is a number of nats, more than 0"),
        ({"length_slope": "nan"}, "length_slope is a number, got 'nan'"),
    ],
)
def test_values_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fake_annotator(**options)


def test_a_temperature_says_nothing_of_single_responses(tmp_path: Path) -> None:
    file = tmp_path / "single.jsonl"
    datasets.Dataset.from_list([{"prompt": "q", "response": "a"}]).to_json(file)
    with pytest.raises(
        ConfigError, match=r"margin_temperature=3.0 has no effect on single responses"
    ):
        run([{"prompt": "q", "response": "a b"}], tmp_path, margin_temperature=3)
    assert "more than 0" in wrong(
        "annotate", file, tmp_path / "o", "--strong", "demo", "--margin-temperature", "-1"
    )
