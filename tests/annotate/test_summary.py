"""The statistics, against closed forms and numpy; the plots; the report."""

from __future__ import annotations

import io
import json
import math
from array import array
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from helpers.fakes import fake_annotator
from helpers.preferences import candidates, pairs
from scipy import stats

from drsow_plugin import DataError, Report
from drsow_plugin.annotate.layout import Layout
from drsow_plugin.annotate.options import LabelConfig
from drsow_plugin.annotate.plots import draw, lengths_figure, margins_figure
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
    summary.add({"domain": list("abab")}, pair_columns(rewards, lengths))
    statistics = summary.statistics().values()
    assert (statistics["rows"], statistics["scored"], statistics["pairs"]) == (4, 4, 4)
    assert statistics["accuracy"] == {
        "value": 0.5,
        "stderr": pytest.approx(math.sqrt(0.25 / 3)),
        "n": 4,
        "ties": 1,
        "low": 0.0,
        "high": 1.0,
    }
    assert statistics["longer"]["value"] == (1 + 0.5 + 1 + 0) / 4
    margins = [2.0, 0.0, -4.0, 4.0]
    assert statistics["margin_quantiles"]["0.25"] == pytest.approx(np.quantile(margins, 0.25))
    reward_spread = [r - sum(row) / 2 for row in rewards for r in row]
    length_spread = [n - sum(row) / 2 for row in lengths for n in row]
    expected = np.corrcoef(reward_spread, length_spread)[0, 1]
    assert statistics["length_correlation"] == pytest.approx(expected)
    among = f"correlation {expected:+.2f}, among the responses to one prompt"
    assert among in summary.statistics().lines()[-1]
    assert statistics["groups"]["a"]["accuracy"]["value"] == 0.5
    assert statistics["groups"]["b"]["margin_quantiles"]["0.5"] == 2.0


def test_the_interval_of_an_accuracy_draws_prompts(tmp_path: Path) -> None:
    rows = [{"prompt": f"q {n // 5}", "chosen": "a", "rejected": f"b {n}"} for n in range(60)]
    annotator = fake_annotator()
    labelled = annotator.run(datasets.Dataset.from_list(rows), cache_dir=str(tmp_path))
    right = np.array(labelled["drsow_margin"]) > 0
    assert annotator.report is not None
    found = annotator.report.splits["train"].accuracy
    sums = right.reshape(12, 5).sum(axis=1) / 5
    expected = stats.bootstrap((sums,), np.mean, method="percentile", n_resamples=5000, rng=0)
    assert found is not None and found.value == right.mean()
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval), abs=0.03)
    assert found.low is not None and f"interval {found.low:.1%} to" in str(annotator.report)


def test_a_swap_counts_against_the_labels_that_were_there() -> None:
    columns = pair_columns([(3.0, 1.0), (3.0, 1.0)], [(10, 5), (10, 5)])
    columns["drsow_swapped"] = [True, False]
    summary = Summary(Layout("pairs", "prompt", ("chosen", "rejected")), LabelConfig())
    summary.add({}, columns)
    statistics = summary.statistics().values()
    assert statistics["accuracy"]["value"] == statistics["longer"]["value"] == 0.5
    assert statistics["chosen_longer"]["value"] == 1.0 and statistics["swapped"] == 1


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
    summary.add(given, columns)
    statistics = summary.statistics().values()
    # Right, wrong, a tie of the ratings, and no ratings.
    found = statistics["accuracy"]
    assert (found["value"], found["n"], found["ties"]) == (0.5, 2, 1)
    assert (
        statistics["longer"]["value"] == 0.0
    )  # shorter was better in the first, in the second too
    assert statistics["chosen_longer"]["value"] == 0.75


def test_rows_without_a_pair_are_counted_by_reason(tmp_path: Path) -> None:
    rows = [
        *candidates(4),
        {"prompt": "q", "responses": ["a", "a"]},
        {"prompt": "q", "responses": []},
    ]
    rows.append({"prompt": None, "responses": ["a", "b"]})
    annotator = fake_annotator()
    data = datasets.Dataset.from_list(rows)
    annotator.run(data, cache_dir=str(tmp_path))
    assert annotator.report is not None
    statistics = annotator.report.values["splits"]["train"]
    assert statistics["dropped"] == {
        "identical responses": 1,
        "fewer than two responses": 1,
        "bad row": 1,
    }
    assert "1 identical responses" in str(annotator.report)
    mapped = annotator.report_on(data.map(annotator, batched=True))
    assert mapped.values["splits"]["train"] == statistics


@pytest.mark.parametrize(
    "rows", [pairs(6), candidates(6), [{"prompt": "q", "response": "a b"}] * 3]
)
def test_a_report_can_be_had_of_mapped_rows_and_read_again(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    annotator = fake_annotator()
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


def test_a_single_response_has_no_pair_and_no_margin(tmp_path: Path) -> None:
    annotator = fake_annotator()
    rows = [{"prompt": "q", "response": "word " * n} for n in range(1, 6)]
    annotator.run(datasets.Dataset.from_list(rows), cache_dir=str(tmp_path))
    assert annotator.report is not None
    statistics = annotator.report.values["splits"]["train"]
    assert statistics["pairs"] is statistics["margin_quantiles"] is statistics["accuracy"] is None
    assert list(annotator.report.pictures) == ["lengths.png"]


@pytest.mark.slow
def test_the_plot_of_lengths_is_drawn_from_a_fair_sample() -> None:
    layout = Layout("single", "prompt", ("response",))
    summary = Summary(layout, LabelConfig())
    for start in range(0, 60_000, 1000):
        values = [float(n) for n in range(start, start + 1000)]
        columns = {
            "drsow_reward": values,
            "drsow_strong_tokens": values,
            "drsow_status": ["ok"] * 1000,
        }
        summary.add({}, columns)
    lengths = np.frombuffer(summary.points[0])
    assert len(lengths) == 20_000 and 29_000 < lengths.mean() < 31_000
    assert summary.statistics().values()["length_correlation"] == pytest.approx(1.0)
    assert summary.statistics().lines()[-1].endswith(" correlation +1.00")
    figure = lengths_figure({"train": summary}, "a over b")
    label = "20,000 of 60,000 responses in train"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [label]
    first, second = (draw({"train": summary}, "a over b")["lengths.png"] for _ in range(2))
    assert first == second


def test_too_many_groups_are_refused() -> None:
    summary = Summary(PAIRS, LabelConfig())
    count = MOST_GROUPS + 1
    columns = pair_columns([(1.0, 0.0)] * count, [(1, 1)] * count)
    with pytest.raises(DataError, match="more than 200 values"):
        summary.add({"domain": list(range(count))}, columns)


def summary_of(margins: Any, points: Any) -> Summary:
    summary = Summary(PAIRS, LabelConfig())
    summary.margins = array("d", margins)
    summary.points = (array("d", [x for x, _ in points]), array("d", [y for _, y in points]))
    summary.seen = len(points)
    return summary


def cloud(number: int, seed: int = 0) -> list[tuple[float, float]]:
    source = np.random.default_rng(seed)
    return [(float(n), source.normal(n / 9, 20)) for n in source.integers(1, 800, number)]


NORMAL = list(np.random.default_rng(0).normal(5, 20, 2000))
DATA = {
    "one": {"train": summary_of([1.5], [(3.0, 1.0), (5.0, -0.5)])},
    "few": {"_x": summary_of([1.5, -2, 0.5, 3], cloud(8)), "a": summary_of([1], cloud(2))},
    "equal": {"train": summary_of([0.0] * 50, [(10.0, 0.0)] * 100)},
    "outliers": {
        "train": summary_of(
            [*NORMAL, 5000, -8000], [*cloud(2000), (30_000.0, 50.0), (50.0, 9e3), (2.0, -7e3)]
        )
    },
    "spike": {"train": summary_of([0.0] * 999 + [1e3], [(10.0, 0.0)] * 300 + [(10.0, 1e3)])},
    "splits": {f"a_split_number_{n}": summary_of(NORMAL, cloud(50, n)) for n in range(9)},
}


@pytest.mark.parametrize("name", DATA)
def test_the_plots_show_every_pair_and_every_response(name: str) -> None:
    summaries = DATA[name]
    margins, lengths = (f(summaries, "a$b$ over c\nd_1") for f in (margins_figure, lengths_figure))
    for figure in (margins, lengths):
        figure.savefig(io.BytesIO(), format="png")
        (axes,), (legend,) = figure.axes, figure.legends
        extent = legend.get_window_extent()
        assert not extent.overlaps(axes.get_window_extent())
        assert figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1
        assert len(legend.get_texts()) == len(summaries)
        label = axes.xaxis.label.get_window_extent()
        assert figure.bbox.x0 <= label.x0 and label.x1 <= figure.bbox.x1
        assert axes.get_title() == r"a\$b\$ over c" "\nd_1"
    axes = margins.axes[0]
    ticks = [tick for tick in axes.get_yticks() if tick <= axes.get_ylim()[1]]
    assert len(ticks) > 1 and all(float(tick).is_integer() for tick in ticks)
    edges = [bar.get_x() for bars in axes.containers for bar in bars]
    assert not min(edges) < 0 < max(edges) or np.abs(edges).min() < 1e-9
    heights = sum(bar.get_height() for bars in axes.containers for bar in bars)
    assert heights == sum(len(summary.margins) for summary in summaries.values())
    axes = lengths.axes[0]
    drawn = np.concatenate([np.transpose(line.get_data()) for line in axes.lines])
    assert len(drawn) == sum(len(summary.points[0]) for summary in summaries.values())
    for values, (low, high) in zip(drawn.T, (axes.get_xlim(), axes.get_ylim()), strict=True):
        assert low <= values.min() and values.max() <= high
    beyond = (2, 3) if name == "outliers" else (0, 0)
    for figure, number in zip((margins, lengths), beyond, strict=True):
        said = figure.axes[0].get_xlabel().partition("\n")[2]
        assert said.startswith(f"{number} beyond the ax") if number else not said


def test_the_title_names_the_pair_and_the_data_and_no_folder() -> None:
    def side(source: str, **others: str) -> dict[str, str]:
        return {"source": source, **others}

    def title(**values: Any) -> str:
        return Report(kind="pairs", **values).title

    pair = {"strong": side("org/model-dpo"), "weak": side("/home/me/model-sft")}
    assert title(pair=pair) == "model-dpo over model-sft"
    named = title(pair=pair, input="/home/me/a.jsonl, b.csv")
    assert named == "model-dpo over model-sft\na.jsonl and 1 more"
    same = {"strong": side("demo", template="tokenizer"), "weak": side("demo", template="none")}
    assert title(pair=same, input="org/data") == (
        "demo (template tokenizer) over demo (template none)\ndata"
    )
    same = {"strong": side("m", adapter="org/tuned"), "weak": side("m")}
    assert title(pair=same) == "m (adapter tuned) over m (no adapter)"
