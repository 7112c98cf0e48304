"""The gate: each bound kept and broken, by numbers that are known; rows in two splits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from helpers.commands import drsow, wrong
from helpers.fakes import fake_annotator
from helpers.labelled import pair, pairs_of
from helpers.preferences import candidates, pairs

from drsow_plugin import DataError
from drsow_plugin.quality.check import check
from drsow_plugin.quality.labelled import LabelledData, open_labelled
from drsow_plugin.quality.options import parse_quality
from drsow_plugin.quality.verdict import Check, Verdict
from drsow_plugin.report.labelled import of_labelled


def held(data: Any, **options: Any) -> Verdict:
    return check(LabelledData.of(data), parse_quality(options))


def named(verdict: Verdict, name: str) -> Check:
    (found,) = [check for check in verdict.checks if check.name == name]
    return found


GOOD = [3.0, -2.0, 5.0, 4.0, 1.0, 6.0, 2.0, 8.0]
LENGTHS = [1, 2, -3, 4, -5, 1, 2, -1]


def test_good_rows_pass() -> None:
    verdict = held(pairs_of(GOOD, LENGTHS), noise=0.001)
    assert verdict.passed and "passed, 8 rows" in str(verdict)
    assert named(verdict, "accuracy").value == 7 / 8
    assert named(verdict, "accuracy").low is not None
    assert [c.name for c in verdict.checks if c.passed is None] == ["duplicates", "shared prompts"]


@pytest.mark.parametrize(
    ("name", "data", "options", "value", "examples"),
    [
        ("missing", [*GOOD, None], {}, 1 / 9, ("train:8",)),
        ("ties", [0.0, *GOOD, 0.0], {}, 2 / 10, ("train:0", "train:9")),
        ("contested", [0.5, -0.4, 0.0, *GOOD], {"max_contested": 0.1}, 3 / 11, ("train:0",)),
        ("accuracy", [-1.0] * 5 + [1.0] * 3, {}, 3 / 8, ()),
        ("accuracy", GOOD, {"min_accuracy": 0.9}, 7 / 8, ()),
    ],
)
def test_a_bound_that_is_broken_says_by_how_much_and_where(
    name: str, data: list[float | None], options: dict[str, Any], value: float, examples: Any
) -> None:
    rows = datasets.Dataset.from_list(
        [pair((m, 100 + n % 3), (0.0, 100)) for n, m in enumerate(data)]
    )
    verdict = held(rows, noise=1.0, max_length_correlation=1, **options)
    found = named(verdict, name)
    assert (found.passed, found.value) == (False, pytest.approx(value))
    assert tuple(found.examples)[: len(examples)] == examples
    assert not verdict.passed and f"FAIL  {name}" in str(verdict)
    loose = {"max_missing": 1, "max_ties": 1, "max_contested": 1, "min_accuracy": 0}
    assert held(rows, noise=1.0, max_length_correlation=1, **loose).passed


def test_a_reward_that_follows_length_is_refused() -> None:
    lengths = np.random.default_rng(0).integers(-40, 40, 200)
    verdict = held(pairs_of(0.3 * lengths, lengths), min_accuracy=0)
    found = named(verdict, "length")
    assert found.passed is False and found.value == pytest.approx(1.0)
    assert "correlate by +1.00" in found.said and found.n == 400
    down = named(held(pairs_of(-0.3 * lengths, lengths), min_accuracy=0), "length")
    assert down.passed is False and "correlate by -1.00" in down.said
    flat = named(held(pairs_of([1.0, 2.0])), "length")
    assert flat.passed is None


def test_rows_of_one_split_that_are_in_another_are_found() -> None:
    train, test = pairs_of(GOOD), pairs_of([*GOOD, *GOOD])
    same = test.select([3]).to_list()[0]
    flipped = {**same, "chosen": same["rejected"], "rejected": same["chosen"]}
    train = datasets.Dataset.from_list([*train.to_list(), flipped])
    other = {**pair((1.0, 1), (2.0, 2)), "prompt": train[0]["prompt"]}
    test = datasets.Dataset.from_list([*test.to_list(), other])
    data = datasets.DatasetDict({"train": train, "test": test})
    verdict = held(data, noise=0, max_shared_prompts=0.1, max_ties=1)
    duplicates, prompts = named(verdict, "duplicates"), named(verdict, "shared prompts")
    assert (duplicates.passed, duplicates.value, duplicates.n) == (False, 1 / 17, 17)
    assert duplicates.examples == ("test:3",) and "1 of split test" in duplicates.said
    assert (prompts.passed, prompts.value) == (False, 2 / 17)
    assert prompts.examples == ("test:3", "test:16")
    assert named(held(data, max_duplicates=0.06), "duplicates").passed


def test_several_data_sets_are_splits_of_each_other(tmp_path: Path) -> None:
    train, test = pairs_of(GOOD), pairs_of(GOOD)
    test = datasets.concatenate_datasets([test, train.select([2])])
    train.to_parquet(tmp_path / "train.parquet")
    test.to_parquet(tmp_path / "test.parquet")
    names = [str(tmp_path / f"{name}.parquet") for name in ("train", "test")]
    found = drsow("check", *names, "--noise", "0", "--json", "-")
    verdict = json.loads(found.stdout)
    assert (found.exit_code, verdict["rows"]) == (3, 17)
    assert verdict["checks"]["duplicates"]["examples"] == [f"{names[1]}: train:8"]
    assert drsow("check", *names, "--noise", "0", "--max-duplicates", "0.2").exit_code == 0
    file = tmp_path / "single.jsonl"
    single = datasets.Dataset.from_list([{"prompt": "q", "response": "a"}])
    fake_annotator().run(single, cache_dir=str(tmp_path)).to_json(file)
    assert "of different kinds: pairs, single" in wrong("check", names[0], file)


def test_data_sets_of_one_name_are_splits_of_their_own() -> None:
    data = LabelledData.of(pairs_of(GOOD))
    found = named(check([data, data], parse_quality({"noise": 0})), "duplicates")
    assert (found.passed, found.value, found.examples[0]) == (False, 1.0, "The data (2): train:0")


def test_of_a_sample_it_is_not_said_that_no_rows_are_in_two_splits() -> None:
    rows = pairs_of(GOOD * 50)
    data = datasets.DatasetDict({"train": rows, "test": rows})
    some = held(data, noise=0, max_rows=8)
    assert named(some, "duplicates").passed in (None, False)
    loose = named(held(data, noise=0, max_rows=80, max_duplicates=0.5), "duplicates")
    assert (loose.passed, loose.value) == (None, None) and "of a sample" in loose.said
    assert named(held(data, noise=0, max_rows=400), "duplicates").passed is False
    assert named(held(data, noise=0, max_duplicates=0.5), "duplicates").value == 1.0


def test_rows_that_cannot_be_read_are_no_duplicates() -> None:
    bad = {**pair((1.0, 1), (2.0, 2)), "prompt": None}
    data = datasets.Dataset.from_list([bad, *pairs_of(GOOD).to_list()])
    other = datasets.Dataset.from_list([bad, *pairs_of(GOOD).to_list()])
    assert named(held(datasets.DatasetDict({"a": data, "b": other})), "duplicates").passed


def test_the_noise_is_that_of_the_dtype_in_the_report(tmp_path: Path) -> None:
    annotator = fake_annotator()
    data = annotator.run(datasets.Dataset.from_list(pairs(20)), cache_dir=str(tmp_path / "c"))
    assert annotator.report is not None
    annotator.report.save(data, tmp_path / "out")
    margins = np.abs(data["drsow_margin"])
    report = json.loads((tmp_path / "out/report.json").read_text())
    for dtypes, noise in (
        (("bfloat16", "float32"), 1.0),
        (("float32", "float32"), 1.2e-4),
        (("float16", "float16"), 0.15),
        (("int4", "float16"), None),
    ):
        for side, dtype in zip(("strong", "weak"), dtypes, strict=True):
            report["pair"][side]["dtype"] = dtype
        (tmp_path / "out/report.json").write_text(json.dumps(report))
        verdict = check(open_labelled(str(tmp_path / "out")), parse_quality({}))
        found = named(verdict, "contested")
        expected = None if noise is None else float(((margins <= noise) & (margins > 0)).mean())
        assert found.value == expected
    assert "the dtype is not known" in found.said
    assert named(held(data, noise=2.5), "contested").value == (margins <= 2.5).mean()


def test_rows_that_were_scored_again_have_the_noise_of_float32() -> None:
    notes = ["scored again in float32", "", "could not be scored again in float32: x"]
    data = pairs_of([0.5, 0.5, 0.5]).remove_columns("drsow_notes").add_column("drsow_notes", notes)
    assert named(held(data, noise=1.0), "contested").value == pytest.approx(2 / 3)


def test_of_candidates_only_those_scored_again_have_the_noise_of_float32(tmp_path: Path) -> None:
    annotator = fake_annotator()
    rows = [{"prompt": "q", "responses": ["a", "b", "c"], "ratings": [3, 2, 1]}]
    data = annotator.run(datasets.Dataset.from_list(rows), cache_dir=str(tmp_path))
    row = {**data[0], "drsow_rewards": [0.8, 0.1, 0.0], "drsow_notes": "scored again in float32"}
    assert annotator.report is not None
    pair = {**annotator.report.pair, "scoring": {"reduction": "sum", "refine": 0.3}}
    report = replace(annotator.report, pair=pair)
    opened = LabelledData.of(datasets.Dataset.from_list([row]), report=report)
    found = named(check(opened, parse_quality({"noise": 1.0})), "contested")
    assert found.value == pytest.approx(2 / 3)  # 0.8 and 0.7 apart, but not 0.1


def test_rows_that_labelling_left_out_are_counted(tmp_path: Path) -> None:
    rows = [*pairs(3), {"prompt": None, "chosen": "a", "rejected": "b", "id": 3}]
    annotator = fake_annotator()
    data = annotator.run(datasets.Dataset.from_list(rows), cache_dir=str(tmp_path / "c"))
    assert annotator.report is not None and len(data) == 3
    annotator.report.save(data, tmp_path / "out.jsonl")
    verdict = check(open_labelled(str(tmp_path / "out.jsonl")), parse_quality({}))
    assert (named(verdict, "missing").value, verdict.failures) == (1 / 4, {"bad row": 1})
    kept = annotator.run(
        datasets.Dataset.from_list(rows), cache_dir=str(tmp_path / "c"), keep_unusable=True
    )
    assert named(held(kept), "missing").examples == ("train:3",)


def test_of_rows_left_out_as_many_are_counted_as_of_the_others_and_only_those_of_the_splits(
    tmp_path: Path,
) -> None:
    bad = {"prompt": None, "chosen": "a", "rejected": "b", "id": 0}
    rows = {"train": [*pairs(40), *[bad] * 10], "test": [*pairs(8), *[bad] * 8]}
    data = datasets.DatasetDict({n: datasets.Dataset.from_list(of) for n, of in rows.items()})
    annotator = fake_annotator()
    labelled = annotator.run(data, cache_dir=str(tmp_path / "c"))
    assert annotator.report is not None
    annotator.report.save(labelled, tmp_path / "out")
    opened = open_labelled(str(tmp_path / "out"), split="train")
    assert named(check(opened, parse_quality({})), "missing").value == 10 / 50
    some = named(check(opened, parse_quality({"max_rows": 20})), "missing")
    assert (some.value, some.n) == (5 / 25, 25)
    material = of_labelled(opened, None, 0)
    assert (material.failures, material.left_out) == ({"bad row": 10}, 10)


def test_rows_without_a_reward_that_are_in_a_shard_are_counted_once(tmp_path: Path) -> None:
    bad = {"prompt": None, "chosen": "a", "rejected": "b", "id": 0}
    data = datasets.Dataset.from_list([*pairs(7), bad, *pairs(8)])
    annotator = fake_annotator()
    cache = str(tmp_path / "c")
    part = annotator.run(data, cache_dir=cache, shard_rows=4, shard="1/2")
    assert annotator.report is not None
    annotator.report.save(part, tmp_path / "out")
    opened = open_labelled(str(tmp_path / "out"))
    verdict = check(opened, parse_quality({}))
    assert (named(verdict, "missing").value, verdict.failures) == (1 / 8, {"bad row": 1})
    material = of_labelled(opened, None, 0)
    assert (material.failures, material.left_out) == ({"bad row": 1}, 0)


def test_a_bound_on_what_is_not_known_is_an_error(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(candidates(5))
    labelled = fake_annotator().run(data, cache_dir=str(tmp_path))
    assert named(held(labelled), "accuracy").passed is None
    with pytest.raises(DataError, match=r"min_accuracy=0.6 was given, and of no pair"):
        held(labelled, min_accuracy=0.6)
    single = [{"prompt": "q", "response": "word " * n} for n in (1, 2, 3)]
    found = held(fake_annotator().run(datasets.Dataset.from_list(single), cache_dir=str(tmp_path)))
    assert [c.passed is None for c in found.checks] == [False, True, True, False, True, True, True]


def test_a_sample_is_said() -> None:
    verdict = held(pairs_of(GOOD * 5), max_rows=10, noise=0)
    assert "a random sample of 10 of 40 rows" in str(verdict)
    assert (verdict.rows, verdict.of_rows, named(verdict, "ties").n) == (10, 40, 10)


def test_the_command_ends_with_status_3_and_a_verdict_for_machines(tmp_path: Path) -> None:
    pairs_of(GOOD, LENGTHS).to_parquet(tmp_path / "good.parquet")
    pairs_of([-m for m in GOOD], LENGTHS).to_json(tmp_path / "bad.jsonl")
    good = drsow("check", tmp_path / "good.parquet", "--noise", "0.1")
    assert (good.exit_code, good.stdout.count("pass  ")) == (0, 5)
    bounds = tmp_path / "bounds.yaml"
    bounds.write_text("min_accuracy: 0.6\nnoise: 0.1\n")
    bad = drsow("check", tmp_path / "bad.jsonl", "--config", bounds, "--json", tmp_path / "v.json")
    assert bad.exit_code == 3 and "FAIL  accuracy" in bad.stdout
    verdict = json.loads((tmp_path / "v.json").read_text())
    assert (verdict["passed"], verdict["rows"], verdict["kind"]) == (False, 8, "pairs")
    found = verdict["checks"]["accuracy"]
    assert (found["passed"], found["value"], found["bound"]) == (False, 1 / 8, 0.6)
    alone = drsow("check", tmp_path / "bad.jsonl", "--json", "-")
    assert json.loads(alone.stdout)["checks"]["contested"]["passed"] is None


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "plain.jsonl"
    datasets.Dataset.from_list(pairs(2)).to_json(file)
    assert "holds no labelled rows" in wrong("check", file)
    pairs_of(GOOD).to_parquet(tmp_path / "good.parquet")
    good = str(tmp_path / "good.parquet")
    assert "max_ties is a number from 0 to 1" in wrong("check", good, "--max-ties", "5")
    assert "no such file" in wrong("check", tmp_path / "none.parquet")
    (tmp_path / "b.yaml").write_text("max_tied: 0.1\n")
    assert "Did you mean 'max_ties'?" in wrong("check", good, "--config", tmp_path / "b.yaml")
    assert "is a folder" in wrong("check", good, "--json", tmp_path)
    assert "cannot be written" in wrong("check", good, "--json", tmp_path / "no" / "v.json")
