"""Data of other shapes, and under which names the columns come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.fakes import fake_annotator, fake_pair
from helpers.labelling import label, run
from helpers.preferences import USER, WORDS, candidates, pairs, turn

from drsow_plugin import Annotator, ConfigError, DataError, DrSoW
from drsow_plugin.annotate.items import second_is_better
from drsow_plugin.annotate.layout import find_layout
from drsow_plugin.annotate.options import LabelConfig

QUESTION, ANSWER = "The quick brown fox?", "It is quick."
SHAREGPT = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, *turn(ANSWER)]},
        {"messages": [USER, *turn(ANSWER)], "prompt": "of the title page", "prompt_id": "x"},
        {"conversations": SHAREGPT},
        {"instruction": QUESTION, "input": "", "output": ANSWER},
        {"instruction": "The quick", "input": "fox?", "output": ANSWER},
        {"prompt": [{**USER, "content": [{"type": "text", "text": QUESTION}]}], "output": ANSWER},
        {"prompt": QUESTION, "response": [{"from": "gpt", "value": ANSWER}]},
    ],
)
def test_a_response_is_found_in_the_shapes_of_the_field(row: dict[str, Any]) -> None:
    prompt = "The quick\n\nfox?" if row.get("input") else QUESTION
    expected = DrSoW(**fake_pair()).score([prompt], [ANSWER])[0].reward
    labelled = label([row], fake_annotator())[0]
    assert labelled["drsow_reward"] == expected
    assert {name: labelled[name] for name in row} == row


def test_a_conversation_without_an_answer_says_so() -> None:
    rows = [{"messages": [USER]}, {"messages": []}, {"messages": None}]
    for row, said in zip(rows, ("roles ['user']", "roles []", "got NoneType"), strict=True):
        columns = {"messages": [row["messages"]]}
        status = fake_annotator()(columns)["drsow_status"][0]  # type: ignore[index]
        assert status.startswith("bad row") and said in status


@pytest.mark.parametrize(
    ("label", "columns", "expected"),
    [
        ("a", ("response_a", "response_b"), False),
        ("B", ("response_a", "response_b"), True),
        ("response_b", ("response_a", "response_b"), True),
        ("model_a", ("answer_a", "answer_b"), False),
        ("[[B>>A]]", ("response_A", "response_B"), True),
        ("A>B", ("response_A", "response_B"), False),
        (0, ("response_0", "response_1"), False),
        (1, ("response_0", "response_1"), True),
        (2.0, ("response1", "response2"), True),
        ("1", ("response_1", "response_2"), False),
        (10, ("answer9", "answer10"), True),
        ("left", ("left", "right"), False),
    ],
)
def test_a_label_names_the_better_response(
    label: Any, columns: tuple[str, str], expected: bool
) -> None:
    assert second_is_better(label, columns) is expected


@pytest.mark.parametrize("label", [None, "tie", "a=b", True, "c", 0.5])
def test_a_label_that_names_neither_is_refused(label: Any) -> None:
    with pytest.raises(DataError, match="needed is 'response_a' or 'response_b'"):
        second_is_better(label, ("response_a", "response_b"))


def test_an_end_that_both_columns_have_names_neither() -> None:
    with pytest.raises(DataError, match="needed is 'better' or 'other'"):
        second_is_better("r", ("better", "other"))


@pytest.mark.parametrize(
    ("labels", "ends"),
    [
        ([1, 1, 0], ("1", "2")),
        (["1", "1", "0"], ("1", "2")),
        ([1.0, 1.0, 0.0], ("1", "2")),
        ([1, 1, 2], ("0", "1")),
        ([1, 1, -1], ("0", "1")),
        (["b", "a", 1], ("a", "b")),
    ],
)
def test_a_number_that_numbers_neither_response_stops_the_run(
    tmp_path: Path, labels: list[Any], ends: tuple[str, str]
) -> None:
    names = [f"response_{end}" for end in ends]
    columns = {"prompt": ["q"] * 3, names[0]: ["a"] * 3, names[1]: ["b"] * 3, "label": labels}
    annotator = fake_annotator()
    said = f"row 2: the label is .*, and neither '{names[0]}' nor '{names[1]}' ends in that number"
    with pytest.raises(DataError, match=said):
        annotator(columns)
    if len({type(label) for label in labels}) == 1:
        with pytest.raises(DataError, match=said):
            options = {"cache_dir": str(tmp_path), "shard_rows": 1}
            annotator.run(datasets.Dataset.from_dict(columns), **options)  # type: ignore[arg-type]


def test_two_responses_and_a_label_become_a_pair(tmp_path: Path) -> None:
    given = [
        {"prompt": f"q {n}", "response_a": WORDS[n], "response_b": WORDS[n + 1], "winner": winner}
        for n, winner in enumerate(("a", "b", "tie"))
    ]
    plain = [
        {"prompt": "q 0", "chosen": WORDS[0], "rejected": WORDS[1]},
        {"prompt": "q 1", "chosen": WORDS[2], "rejected": WORDS[1]},
    ]
    annotator = fake_annotator()
    labelled = run(annotator, given, tmp_path)
    ours = labelled.remove_columns(["response_a", "response_b", "winner"])
    assert ours.to_list() == run(annotator, plain, tmp_path).to_list()
    renamed = [{"q": r["prompt"], "x": r["response_a"], "y": r["response_b"]} for r in given]
    renamed = [{**row, "best": mark} for row, mark in zip(renamed, ("x", "y", None), strict=True)]
    names = {"chosen_column": "x", "rejected_column": "y", "label_column": "best"}
    swapped = fake_annotator(prompt_column="q", relabel="swap", **names)  # type: ignore[arg-type]
    for row, other in zip(run(swapped, renamed, tmp_path), labelled, strict=True):
        assert row["drsow_margin"] == abs(other["drsow_margin"]) > 0
        names_of_both = ("chosen", "rejected")[:: -1 if row["drsow_swapped"] else 1]
        assert [row[n] for n in names_of_both] == [other["chosen"], other["rejected"]]
    kept = run(annotator, given, tmp_path, keep_unusable=True)
    assert "the label says neither" in kept["drsow_status"][2] and kept["chosen"][2] is None
    assert kept["prompt"][2] == "q 2"


NAMES = {"prompt_column": "question", "chosen_column": "better", "rejected_column": "worse"}


def renamed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = {name.removesuffix("_column"): new for name, new in NAMES.items()}
    return [{names.get(name, name): value for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("relabel", ["keep", "swap"])
@pytest.mark.parametrize("shape", ["text", "messages", "mixed"])
def test_columns_come_out_under_the_names_that_trainers_take(
    tmp_path: Path, relabel: Any, shape: str
) -> None:
    rows = pairs(6)
    if shape != "text":
        rows = [{**r, "chosen": turn(r["chosen"]), "rejected": turn(r["rejected"])} for r in rows]
    if shape == "messages":
        rows = [{**r, "prompt": [{"role": "user", "content": r["prompt"]}]} for r in rows]
    plain = run(fake_annotator(relabel=relabel), rows, tmp_path)
    annotator = fake_annotator(relabel=relabel, **NAMES)  # type: ignore[arg-type]
    data = datasets.Dataset.from_list(renamed(rows))
    labelled = annotator.run(data, cache_dir=str(tmp_path))
    assert labelled.features == plain.features and list(labelled) == list(plain)
    mapped = data.map(annotator, batched=True)  # which cannot take columns away
    assert list(mapped.select_columns(plain.column_names)) == list(plain)
    assert annotator.report_on(labelled).values["splits"]["train"]["pairs"] == 6


def test_names_are_kept_on_request_and_never_overwrite(tmp_path: Path) -> None:
    rows = renamed(pairs(4))
    kept = run(fake_annotator(keep_names=True, **NAMES), rows, tmp_path)  # type: ignore[arg-type]
    assert list(rows[0]) == [name for name in kept.column_names if not name.startswith("drsow")]
    beside = [{**row, "chosen": "mine"} for row in rows]
    with pytest.raises(DataError, match=r"would be written: chosen.*keep_names=true"):
        run(fake_annotator(**NAMES), beside, tmp_path)  # type: ignore[arg-type]
    assert run(fake_annotator(keep_names=True, **NAMES), beside, tmp_path)  # type: ignore[arg-type]
    exchanged = {"chosen_column": "rejected", "rejected_column": "chosen"}
    there = run(fake_annotator(), pairs(4), tmp_path)
    back = run(fake_annotator(**exchanged), pairs(4), tmp_path)  # type: ignore[arg-type]
    assert back["chosen"] == there["rejected"] and back["rejected"] == there["chosen"]
    assert back["drsow_margin"] == [-margin for margin in there["drsow_margin"]]


def test_the_prompt_of_pairs_is_called_prompt(tmp_path: Path) -> None:
    rows = [{"instruction": r.pop("prompt"), **r} for r in pairs(3)]
    labelled = run(fake_annotator(), rows, tmp_path)
    assert labelled["prompt"] == [row["instruction"] for row in rows]
    assert "instruction" not in labelled.column_names
    about = run(fake_annotator(), [{**r, "input": "Of 1 and 2."} for r in rows], tmp_path)
    assert about["prompt"] == [f"{row['instruction']}\n\nOf 1 and 2." for row in rows]
    assert about["chosen"] == labelled["chosen"] and about["input"][0] == "Of 1 and 2."


@pytest.mark.slow
def test_a_second_pair_of_models_labels_beside_the_first(
    tmp_path: Path, strong: str, weak: str
) -> None:
    first = run(Annotator(strong, weak), candidates(6), tmp_path)
    second = Annotator(weak, strong, prefix="b_", kind="candidates")
    both = second.run(first, cache_dir=str(tmp_path))
    assert list(both.select_columns(first.column_names)) == list(first)
    alone = run(Annotator(weak, strong, prefix="b_"), candidates(6), tmp_path)
    for name in ("chosen", "rejected", "chosen_score", "rejected_score"):
        assert both[f"b_{name}"] == alone[name]
    assert both["b_margin"] == alone["b_margin"] and both["prompt"] == alone["prompt"]
    assert second.report is not None
    statistics = second.report.values["splits"]
    assert statistics == second.report_on(both).values["splits"]
    assert statistics["train"]["margin_quantiles"]["0.5"] != 0
    paired = run(Annotator(strong, weak), pairs(4), tmp_path)
    assert "b_margin" in Annotator(weak, strong, prefix="b_").run(paired).column_names


@pytest.mark.parametrize(
    ("columns", "option"),
    [
        (["prompt", "chosen", "rejected"], {"select": "best_vs_worst"}),
        (["prompt", "chosen", "rejected"], {"seed": 3}),
        (["prompt", "responses"], {"relabel": "swap"}),
        (["prompt", "responses"], {"keep_names": True}),
        (["prompt", "response"], {"min_margin": 1.0}),
        (["prompt", "response"], {"messages": True}),
        (["prompt", "chosen", "rejected", "r"], {"ratings_column": "r"}),
        (["prompt", "responses", "r"], {"kind": "candidates", "chosen_column": "r"}),
    ],
)
def test_an_option_without_effect_on_the_kind_of_data_is_refused(
    columns: list[str], option: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=f"{list(option)[-1]}=.* has no effect on .*only on"):
        find_layout(columns, LabelConfig(**option))


@pytest.mark.parametrize("relabel", ["keep", "swap"])
def test_pairs_below_the_minimum_margin_are_left_out(tmp_path: Path, relabel: Any) -> None:
    free = fake_annotator(relabel=relabel)
    everything = run(free, pairs(), tmp_path)
    minimum = sorted(map(abs, everything["drsow_margin"]))[4]
    annotator = fake_annotator(min_margin=minimum, relabel=relabel)
    labelled = run(annotator, pairs(), tmp_path)
    assert list(labelled) == [row for row in everything if row["drsow_margin"] >= minimum]
    assert 0 < len(labelled) < 10
    assert annotator.report is not None and free.report is not None
    statistics, before = (a.report.values["splits"]["train"] for a in (annotator, free))  # type: ignore[union-attr]
    assert statistics["dropped"] == {"margin below min_margin": 10 - len(labelled)}
    assert statistics["accuracy"] == before["accuracy"] and statistics["pairs"] == len(labelled)


def test_columns_of_images_are_in_the_notes() -> None:
    rows = [{**row, "images": ["x.png"]} for row in pairs(2)]
    notes = label(rows, fake_annotator())["drsow_notes"]
    assert notes == ["only text is scored: 'images' is not read"] * 2


def test_classes_are_read_by_their_names(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["response_b", "response_a"])
    rows = {"prompt": ["Say it."] * 2, "response_a": ["yes", "yes"], "response_b": ["no", "no"]}
    data = datasets.Dataset.from_dict({**rows, "label": [1, 0]}).cast_column("label", names)
    annotate = fake_annotator()
    for labelled in (
        annotate.run(data, cache_dir=str(tmp_path)),
        data.map(annotate, batched=True),
    ):
        assert [
            row[0]["content"] if isinstance(row, list) else row for row in labelled["chosen"]
        ] == ["yes", "no"]
