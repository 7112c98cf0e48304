"""The figures of the summary, against closed forms and numpy; the pictures; the report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from test_annotator import candidates, pairs

from drsow_plugin import Annotator, DataError, Report
from drsow_plugin.annotate.figures import draw
from drsow_plugin.annotate.layout import Layout
from drsow_plugin.annotate.options import LabelConfig
from drsow_plugin.annotate.summary import MOST_GROUPS, Summary

PAIRS = Layout("pairs", "prompt", ("chosen", "rejected"), group="domain")


def pair_columns(rewards: list[tuple[float, float]], lengths: list[tuple[int, int]]) -> Any:
    columns: dict[str, list[Any]] = {
        "drsow_chosen_reward": [a for a, _ in rewards],
        "drsow_rejected_reward": [b for _, b in rewards],
        "drsow_chosen_strong_tokens": [a for a, _ in lengths],
        "drsow_rejected_strong_tokens": [b for _, b in lengths],
        "drsow_margin": [a - b for a, b in rewards],
        "drsow_status": ["ok"] * len(rewards),
    }
    return columns


def test_accuracy_length_and_margin_of_pairs() -> None:
    rewards = [(3.0, 1.0), (2.0, 2.0), (0.0, 4.0), (5.0, 1.0)]
    lengths = [(10, 5), (4, 4), (9, 3), (2, 8)]
    summary = Summary(PAIRS, LabelConfig())
    summary.add({"domain": list("abab")}, pair_columns(rewards, lengths), [True] * 4)
    found = summary.describe()
    assert (found["rows"], found["scored"], found["pairs"]) == (4, 4, 4)
    assert found["accuracy"] == {
        "value": 0.5,
        "stderr": pytest.approx(math.sqrt(0.25 / 3)),
        "n": 4,
        "ties": 1,
    }
    assert found["longer"]["value"] == (1 + 0.5 + 1 + 0) / 4
    margins = [2.0, 0.0, -4.0, 4.0]
    assert found["margin_quantiles"]["0.25"] == pytest.approx(np.quantile(margins, 0.25))
    reward_spread = [r - sum(row) / 2 for row in rewards for r in row]
    length_spread = [n - sum(row) / 2 for row in lengths for n in row]
    expected = np.corrcoef(reward_spread, length_spread)[0, 1]
    assert found["length_correlation"] == pytest.approx(expected)
    assert found["groups"]["a"]["accuracy"]["value"] == 0.5
    assert found["groups"]["b"]["margin_quantiles"]["0.5"] == 2.0


def test_a_swap_counts_against_the_labels_that_were_there() -> None:
    columns = pair_columns([(3.0, 1.0), (3.0, 1.0)], [(10, 5), (10, 5)])
    columns["drsow_swapped"] = [True, False]
    summary = Summary(Layout("pairs", "prompt", ("chosen", "rejected")), LabelConfig())
    summary.add({}, columns, [True, True])
    found = summary.describe()
    assert found["accuracy"]["value"] == found["longer"]["value"] == 0.5
    assert found["chosen_longer"]["value"] == 1.0 and found["swapped"] == 1


def test_candidates_are_compared_with_their_ratings() -> None:
    layout = Layout("candidates", "prompt", ("responses",), ratings="ratings")
    columns: dict[str, list[Any]] = {
        "drsow_rewards": [[3.0, 1.0, None], [3.0, 1.0, 2.0], [3.0, 1.0], [3.0, 1.0]],
        "drsow_strong_tokens": [[5, 9, None], [5, 9, 2], [9, 5], [9, 5]],
        "drsow_chosen_index": [0, 0, 0, 0],
        "drsow_rejected_index": [1, 2, 1, 1],
        "drsow_status": ["partial: bad row: response 2: missing", "ok", "ok", "ok"],
        "drsow_margin": [2.0, 1.0, 2.0, 2.0],
    }
    ratings = [[9.0, 1.0, None], [1.0, 2.0, 8.0], [4.0, 4.0], None]
    summary = Summary(layout, LabelConfig())
    responses = [[""] * len(rewards) for rewards in columns["drsow_rewards"]]
    given = {"prompt": [""] * 4, "responses": responses, "ratings": ratings}
    summary.add(given, columns, [True] * 4)
    found = summary.describe()
    # Right, wrong, a tie of the ratings, and no ratings.
    assert found["accuracy"] | {"stderr": 0} == {"value": 0.5, "stderr": 0, "n": 2, "ties": 1}
    assert found["longer"]["value"] == 0.0  # shorter was better in the first, in the second too
    assert found["chosen_longer"]["value"] == 0.75


def test_rows_without_a_pair_are_counted_by_reason(strong: str, weak: str, tmp_path: Path) -> None:
    rows = [
        *candidates(4),
        {"prompt": "q", "responses": ["a", "a"]},
        {"prompt": "q", "responses": []},
    ]
    rows.append({"prompt": None, "responses": ["a", "b"]})
    annotator = Annotator(strong, weak)
    data = datasets.Dataset.from_list(rows)
    annotator.run(data, cache_dir=str(tmp_path))
    assert annotator.report is not None
    found = annotator.report.values["splits"]["train"]
    assert found["dropped"] == {
        "identical responses": 1,
        "fewer than two responses": 1,
        "bad row": 1,
    }
    assert "1 identical responses" in str(annotator.report)
    mapped = annotator.report_on(data.map(annotator, batched=True))
    again = mapped.values["splits"]["train"]
    quantiles = found.pop("margin_quantiles")
    assert again.pop("margin_quantiles") == pytest.approx(quantiles, abs=1e-4)
    assert again.pop("length_correlation") == pytest.approx(found.pop("length_correlation"))
    assert again == found


@pytest.mark.parametrize(
    "rows", [pairs(6), candidates(6), [{"prompt": "q", "response": "a b"}] * 3]
)
def test_a_report_can_be_had_of_mapped_rows_and_read_again(
    strong: str, weak: str, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    annotator = Annotator(strong, weak)
    data = datasets.Dataset.from_list(rows)
    annotator.run(data, cache_dir=str(tmp_path), keep_unusable=True)
    mapped = annotator.report_on(data.map(annotator, batched=True))
    assert annotator.report is not None
    assert mapped.values["columns"] == annotator.report.values["columns"]
    assert mapped.values["annotation"] == annotator.report.values["annotation"]
    assert ("relabel" in mapped.values["annotation"]) == ("chosen" in rows[0])
    assert ("select" in mapped.values["annotation"]) == ("responses" in rows[0])
    for name, content in mapped.files().items():
        (tmp_path / name).write_bytes(content)
    again = Report.load(tmp_path)
    assert again.values == json.loads(json.dumps(mapped.values))
    assert again.pictures == mapped.pictures
    with pytest.raises(DataError, match="what map"):
        annotator.report_on(data)


def test_a_single_response_has_no_pair_and_no_margin(
    strong: str, weak: str, tmp_path: Path
) -> None:
    annotator = Annotator(strong, weak)
    rows = [{"prompt": "q", "response": "word " * n} for n in range(1, 6)]
    annotator.run(datasets.Dataset.from_list(rows), cache_dir=str(tmp_path))
    assert annotator.report is not None
    found = annotator.report.values["splits"]["train"]
    assert found["pairs"] is found["margin_quantiles"] is found["accuracy"] is None
    assert list(annotator.report.pictures) == ["lengths.png"]


def test_the_picture_of_lengths_is_drawn_from_a_fair_sample() -> None:
    layout = Layout("single", "prompt", ("response",))
    summary = Summary(layout, LabelConfig())
    for start in range(0, 60_000, 1000):
        values = [float(n) for n in range(start, start + 1000)]
        columns = {
            "drsow_reward": values,
            "drsow_strong_tokens": values,
            "drsow_status": ["ok"] * 1000,
        }
        summary.add({}, columns, [True] * 1000)
    lengths = np.frombuffer(summary.points[0])
    assert len(lengths) == 20_000 and 29_000 < lengths.mean() < 31_000
    assert summary.describe()["length_correlation"] == pytest.approx(1.0)
    assert draw({"train": summary})["lengths.png"] == draw({"train": summary})["lengths.png"]


def test_too_many_groups_are_refused() -> None:
    summary = Summary(PAIRS, LabelConfig())
    count = MOST_GROUPS + 1
    columns = pair_columns([(1.0, 0.0)] * count, [(1, 1)] * count)
    with pytest.raises(DataError, match="more than 200 values"):
        summary.add({"domain": list(range(count))}, columns, [True] * count)
