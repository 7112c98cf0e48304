"""Labelled rows are read as they were labelled: pairs, exchanged ones, candidates, samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from helpers.fakes import fake_annotator
from helpers.labelled import pair, pairs_of
from helpers.preferences import candidates, pairs

from drsow_plugin import DataError, DrSoW
from drsow_plugin.annotate.options import LabelConfig
from drsow_plugin.quality.labelled import LabelledData, open_labelled
from drsow_plugin.quality.opened import LabelledRun
from drsow_plugin.quality.rows import Rows, read_labelled


def read(data: Any, **options: Any) -> Rows:
    return read_labelled(LabelledData.of(data), **options)


def labelled(rows: list[dict[str, Any]], folder: Path, **options: Any) -> Any:
    data = datasets.Dataset.from_list(rows)
    return fake_annotator(**options).run(data, cache_dir=str(folder), keep_unusable=True)


def test_pairs_have_the_margins_that_were_written(tmp_path: Path) -> None:
    data = labelled(pairs(25), tmp_path)
    rows = read(data)
    assert rows.pairs.margin.tolist() == data["drsow_margin"]
    tokens = np.array(data["drsow_chosen_strong_tokens"]) - data["drsow_rejected_strong_tokens"]
    assert rows.pairs.length.tolist() == tokens.tolist()
    assert rows.pairs.gold.all() and len(rows.responses) == 50
    assert rows.responses.reward[rows.pairs.better].tolist() == data["drsow_chosen_reward"]
    assert rows.responses.reward[rows.pairs.other].tolist() == data["drsow_rejected_reward"]
    assert (rows.rows, rows.of_rows, rows.sampled) == (25, 25, "25 rows")
    assert len(set(rows.pairs.prompt.tolist())) == 25


def test_exchanged_pairs_count_against_the_labels_that_were_there(tmp_path: Path) -> None:
    kept = read(labelled(pairs(30), tmp_path))
    swapped = labelled(pairs(30), tmp_path, relabel="swap")
    assert any(swapped["drsow_swapped"])
    assert read(swapped).pairs.margin.tolist() == kept.pairs.margin.tolist()
    assert read(swapped).pairs.length.tolist() == kept.pairs.length.tolist()


def test_rated_candidates_are_all_compared_by_their_ratings(tmp_path: Path) -> None:
    rows = [
        {**row, "ratings": [5.0, 1.0, 3.0, 3.0, None][: len(row["responses"])]}
        for row in candidates(8)
    ]
    data = labelled(rows, tmp_path)
    found = read(data)
    sizes = [len(row["responses"]) for row in rows]
    assert (
        len(found.responses) == sum(sizes) and found.gold.margin.shape == found.pairs.margin.shape
    )
    assert len(found.pairs) == sum({2: 1, 3: 3, 4: 5, 5: 5}[size] for size in sizes)
    first = found.pairs.where(found.pairs.row == 1)
    rewards, ratings = data[1]["drsow_rewards"], rows[1]["ratings"]
    expected = sorted(
        rewards[a] - rewards[b] for a in range(3) for b in range(3) if ratings[a] > ratings[b]
    )
    assert sorted(first.margin.tolist()) == expected


def test_candidates_without_ratings_have_the_pair_that_was_made_and_no_labels(
    tmp_path: Path,
) -> None:
    data = labelled(candidates(9), tmp_path)
    rows = read(data)
    assert rows.pairs.margin.tolist() == data["drsow_margin"]
    assert not rows.pairs.gold.any() and len(rows.gold) == 0


def test_single_responses_have_no_pairs(tmp_path: Path) -> None:
    rows = read(labelled([{"prompt": "q", "response": "word " * n} for n in (1, 2, 3)], tmp_path))
    assert (len(rows.responses), len(rows.pairs), len(set(rows.responses.prompt.tolist()))) == (
        *(3, 0),
        1,
    )


def test_what_has_no_reward_is_counted_by_reason(tmp_path: Path) -> None:
    rows = [*pairs(3), {"prompt": None, "chosen": "a", "rejected": "b", "id": 3}]
    found = read(labelled(rows, tmp_path))
    assert (len(found.pairs), len(found.responses), found.failures) == (3, 6, {"bad row": 1})
    data = datasets.Dataset.from_list(
        [pair((None, 3), (1.0, 4)), pair((float("nan"), 3), (1.0, 4))]
    )
    assert (len(read(data).pairs), len(read(data).responses)) == (0, 2)


def test_parts_and_trusted_labels_are_those_of_their_columns() -> None:
    data = pairs_of([1.0, -1.0, 2.0], subset=["a", "b", "a"], sure=[True, None, False])
    rows = read_labelled(LabelledData.of(data, gold_column="sure"))
    assert [rows.groups[n] for n in rows.pairs.group] == ["a", "b", "a"]
    assert rows.gold.margin.tolist() == [1.0]
    numbers = pairs_of([1.0, -1.0, 2.0], sure=[1.0, float("nan"), 0.0])
    assert read_labelled(LabelledData.of(numbers, gold_column="sure")).gold.margin.tolist() == [1.0]
    by_column = LabelledData.of(data, LabelConfig(group_column="sure"))
    assert list(read_labelled(by_column).groups) == ["True", "", "False"]
    with pytest.raises(DataError, match="gold_column: Unknown column 'surely'"):
        LabelledData.of(data, gold_column="surely")


def test_a_sample_is_random_and_says_so() -> None:
    data = datasets.DatasetDict(
        {"train": pairs_of(range(1, 901)), "test": pairs_of(range(1001, 1101))}
    )
    rows = read(data, max_rows=100)
    assert (rows.rows, rows.of_rows) == (100, 1000)
    assert rows.sampled == "a random sample of 100 of 1,000 rows"
    margins = rows.pairs.margin
    assert 300 < margins.mean() < 700 and 0 < (margins > 1000).sum() < 30
    assert set(rows.pairs.row.tolist()) == {int(m) - 1 - 100 * (m > 1000) for m in margins}
    assert read(data, max_rows=100, seed=1).pairs.margin.tolist() != margins.tolist()


def test_what_annotate_wrote_is_opened_with_its_options(tmp_path: Path) -> None:
    rows = [{"question": f"q {n}", "good": f"a {n}", "bad": f"b {n}"} for n in range(6)]
    names = {"prompt_column": "question", "chosen_column": "good", "rejected_column": "bad"}
    for keep, output in ((True, "kept"), (False, "renamed.parquet")):
        annotator = fake_annotator(prefix="x_", keep_names=keep, **names)
        data = annotator.run(datasets.Dataset.from_list(rows), cache_dir=str(tmp_path / "cache"))
        assert annotator.report is not None
        annotator.report.save(data, tmp_path / output)
        opened = open_labelled(str(tmp_path / output))
        assert opened.report is not None and opened.prefix == "x_" and len(opened) == 6
        assert read_labelled(opened).pairs.margin.tolist() == data["x_margin"]
        (batch,) = opened.batches("train")
        assert batch.items[2].responses == ("a 2", "b 2")


@pytest.mark.parametrize("relabel", ["keep", "swap"])
@pytest.mark.parametrize("shape", ["label", "input", "messages"])
def test_texts_have_their_own_rewards_where_the_pair_was_written_anew(
    tmp_path: Path, shape: str, relabel: str
) -> None:
    rows = [{"instruction": f"q {n}", "x": f"a {n} b", "y": f"c {n}"} for n in range(8)]
    options = {"chosen_column": "x", "rejected_column": "y", "relabel": relabel}
    if shape == "label":
        rows = [{**row, "better": "xy"[n % 2]} for n, row in enumerate(rows)]
        options["label_column"] = "better"
    if shape == "input":
        rows = [{**row, "input": "about"} for row in rows]
    if shape == "messages":
        options |= {"messages": True, "keep_names": True}
    annotator = fake_annotator(**options)
    cache = str(tmp_path / "cache")
    data = annotator.run(datasets.Dataset.from_list(rows), cache_dir=cache)
    opened = LabelledData.of(data, report=annotator.report)
    about = "\n\nabout" if shape == "input" else ""
    single = [
        {"prompt": row["instruction"] + about, "response": row[side]}
        for row in rows
        for side in "xy"
    ]
    alone = fake_annotator().run(datasets.Dataset.from_list(single), cache_dir=cache)
    rewards = dict(zip(alone["response"], alone["drsow_reward"], strict=True))
    for number, row in LabelledRun(opened).rows():
        assert row is not None
        assert list(row.rewards) == [rewards[text] for text in row.responses]
        better = "xy"[number % 2] if shape == "label" else "x"
        assert row.responses[row.best[0]] == rows[number][better]


def test_data_that_is_not_labelled_is_refused_in_one_line(tmp_path: Path) -> None:
    plain = datasets.Dataset.from_list(pairs(2))
    with pytest.raises(DataError, match=r"no labelled rows.*Label them first: drsow annotate"):
        LabelledData.of(plain, name="plain.jsonl")
    other = labelled(pairs(2), tmp_path, prefix="mine_")
    with pytest.raises(DataError, match="columns that begin with 'mine_': prefix=mine_"):
        LabelledData.of(other)
    data = pairs_of([1.0])
    with pytest.raises(DataError, match=r"lacks columns.*drsow_rejected_reward"):
        LabelledData.of(data.remove_columns("drsow_rejected_reward"))
    texts = data.remove_columns("drsow_chosen_reward").add_column("drsow_chosen_reward", ["much"])
    with pytest.raises(DataError, match="drsow_chosen_reward holds no numbers"):
        LabelledData.of(texts)
    with pytest.raises(DataError, match="no data set on disk"):
        LabelledData.of({"train": texts.to_iterable_dataset()})


def test_columns_that_do_not_go_together_are_named_with_their_row(tmp_path: Path) -> None:
    data = labelled(candidates(3), tmp_path)
    for column, values in (("chosen_index", [0, 99, 0]), ("strong_tokens", [[1, 2]] * 3)):
        changed = data.remove_columns(f"drsow_{column}").add_column(f"drsow_{column}", values)
        with pytest.raises(DataError, match=r"row 1 of train: the columns.*Label it again"):
            read(changed)


def test_nothing_here_opens_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr(DrSoW, "__init__", refuse)
    assert len(read(pairs_of([1.0, 2.0])).pairs) == 2
