"""Runs that are interrupted, repeated, changed or shared out go on where they should."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.fakes import fake_annotator
from helpers.labelling import run, scores
from helpers.preferences import candidates, pairs

from drsow_plugin import Annotator, ConfigError, DataError, DrSoW, EngineError, Reward, Scoring
from drsow_plugin.annotate.drivers import processes
from drsow_plugin.annotate.items import Item
from drsow_plugin.annotate.store import open_store
from drsow_plugin.records import Problem

POINTS = 20


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of responses of each call that scores."""
    calls: list[int] = []
    score = DrSoW.score_rows

    def count(self: DrSoW, rows: Any, **options: Any) -> list[Reward]:
        calls.append(len(rows))
        return score(self, rows, **options)

    monkeypatch.setattr(DrSoW, "score_rows", count)
    return calls


@pytest.mark.fault(
    "kill",
    "SIGKILL of a run that labels, at a random moment",
    "the same run goes on: the same rows, and nothing is scored twice but the shard at work",
)
@pytest.mark.slow
def test_a_run_killed_at_any_point_goes_on_and_gives_the_same_rows(
    tmp_path: Path, strong: str, weak: str
) -> None:
    script = str(Path(__file__).parents[1].joinpath("helpers", "killed_runs.py"))
    command = [sys.executable, script, strong, weak, str(tmp_path), str(POINTS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    runs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(runs) == POINTS
    assert all(run["same"] for run in runs)
    assert not any(run["scored_again"] for run in runs)
    assert {run["finished"] for run in runs} == {15}
    assert sum(run["killed"] for run in runs) >= POINTS - 5
    assert len({run["kept"] for run in runs}) > 5  # they were killed at different points


def test_work_of_another_rounding_is_kept_apart(strong: str, weak: str) -> None:
    variants: list[dict[str, Any]] = [
        *({}, {"batch_tokens": 64}, {"batch_size": 2}),
        *({"compile": "on"}, {"strong_compile": "on"}, {"weak_compile": "off"}),
    ]
    opened = [Annotator(strong, weak, **options).scorer for options in variants]
    assert len({scorer.work_key for scorer in opened}) == len(variants)
    assert len({scorer.fingerprint for scorer in opened}) == 1


def test_the_rows_are_those_of_map(tmp_path: Path) -> None:
    for rows, options in ((candidates(), {}), (pairs(), {"relabel": "swap"})):
        annotator = fake_annotator(**options)
        mapped = datasets.Dataset.from_list(rows).map(annotator, batched=True, batch_size=4)
        ran = run(annotator, rows, tmp_path)
        assert list(ran) == list(mapped)
        assert ran.features == mapped.features


def test_a_second_run_scores_nothing(tmp_path: Path, scored: list[int]) -> None:
    first = run(fake_annotator(), candidates(), tmp_path)
    assert len(scored) == 3
    assert list(run(fake_annotator(), candidates(), tmp_path)) == list(first)
    assert len(scored) == 3


def test_other_labels_from_the_same_rewards_need_no_scores(
    tmp_path: Path, scored: list[int]
) -> None:
    run(fake_annotator(), candidates(), tmp_path)
    worst = run(fake_annotator(select="best_vs_worst"), candidates(), tmp_path)
    assert len(scored) == 3
    assert all(min(row["drsow_rewards"]) == row["rejected_score"] for row in worst)


@pytest.mark.parametrize(
    "change",
    [{"reduction": "mean"}, {"end_of_turn": False}, {"weak_template": "none"}, {"batch_size": 2}],
)
def test_another_configuration_does_not_mix_with_what_is_there(
    tmp_path: Path, scored: list[int], change: dict[str, Any]
) -> None:
    run(fake_annotator(), pairs(), tmp_path)
    changed = run(fake_annotator(**change), pairs(), tmp_path)
    assert len(scored) == 6
    alone = run(fake_annotator(**change), pairs(), tmp_path / "alone")
    assert list(changed) == list(alone)


def test_rows_added_at_the_end_are_all_that_is_scored(tmp_path: Path, scored: list[int]) -> None:
    run(fake_annotator(), pairs(8), tmp_path)
    run(fake_annotator(), pairs(12), tmp_path)
    assert scored == [8, 8, 8]


@pytest.mark.fault(
    "shard",
    "files of scores are empty, no parquet, or cut in half",
    "they are scored again; the rows are the same",
)
def test_a_damaged_file_is_scored_again(tmp_path: Path, scored: list[int]) -> None:
    first = run(fake_annotator(), pairs(), tmp_path)
    for file, content in zip(scores(tmp_path), (b"", b"PAR1 no", None), strict=True):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert list(run(fake_annotator(), pairs(), tmp_path)) == list(first)
    assert len(scored) == 6


@pytest.mark.fault(
    "memory",
    "a row had no reward for want of memory",
    "that is not kept: the next run tries it again",
)
def test_what_failed_for_want_of_memory_is_not_kept(tmp_path: Path) -> None:
    item = Item(({"role": "user", "content": "q"},), ("a", None))
    fine = Reward(1.0, -1.0, -2.0, 1, 1, notes=("a note",), strong_token_logprobs=(-1.0,))
    problem = Problem("out of memory", "…", "strong")
    failed = dataclasses.replace(fine, reward=None, problems=(problem,))
    with open_store(tmp_path, Scoring()) as rewards:
        rewards.save([item], [[failed, None]])
        assert rewards.load([item]) is None
        rewards.save([item], [[fine, None]])
        assert rewards.load([item]) == [[fine, None]]


def test_all_of_a_reward_is_kept(tmp_path: Path) -> None:
    policies = Scoring(reduction="mean", end_of_turn=False, overflow="skip", max_length=64)
    values: dict[str, Any] = {
        "reward": -1.0 / 2 + 2.5 / 4,
        "strong_logprob": -1.0,
        "weak_logprob": -2.5,
        "strong_tokens": 2,
        "weak_tokens": 4,
        "strong_truncated": 1,
        "weak_truncated": 2,
        "problems": (Problem("too long", "…", "strong"), Problem("too long", "…", "weak")),
        "notes": ("one", "other"),
        "scoring": policies,
        "strong_token_logprobs": (-0.5, -0.5),
        "weak_token_logprobs": (-1.0, -0.5, -0.5, -0.5),
        "domain": "law",
        "domain_confidence": 0.25,
    }
    assert set(values) == {entry.name for entry in dataclasses.fields(Reward)}
    item = Item(({"role": "user", "content": "q"},), ("a",))
    with open_store(tmp_path, policies) as rewards:
        rewards.save([item], [[Reward(**values)]])
        assert rewards.load([item]) == [[Reward(**values)]]


@pytest.mark.slow
def test_several_processes_give_the_rows_of_one(tmp_path: Path, strong: str, weak: str) -> None:
    alone = run(Annotator(strong, weak), candidates(30), tmp_path / "alone")
    shared = run(Annotator(strong, weak), candidates(30), tmp_path / "shared", num_proc=2)
    for one, other in zip(alone, shared, strict=True):
        assert one["drsow_rewards"] == pytest.approx(other["drsow_rewards"], abs=1e-4)
        assert (one["chosen"], one["rejected"]) == (other["chosen"], other["rejected"])
    assert [f.name for f in scores(tmp_path / "alone")] == [
        f.name for f in scores(tmp_path / "shared")
    ]


@pytest.mark.fault(
    "worker",
    "a process of `num_proc` dies as it starts",
    "one line, and no hang; finished work is kept",
)
@pytest.mark.slow
def test_a_process_that_dies_leaves_finished_work(
    tmp_path: Path, strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pairs(12)
    monkeypatch.setattr(processes, "_start", die)
    with pytest.raises(EngineError, match="Finished work is kept"):
        run(Annotator(strong, weak), rows, tmp_path, num_proc=2)


def die(*_args: Any) -> None:
    os._exit(9)


@pytest.mark.fault(
    "rows",
    "a response that is missing, or too long for a model",
    "left out and counted by reason, or kept with nulls; `on_error=raise` names the row",
)
def test_bad_rows_are_left_out_counted_and_on_request_kept(tmp_path: Path) -> None:
    rows = pairs(8)
    rows[2]["chosen"] = None
    rows[5]["rejected"] = "lazy " * 600
    annotator = fake_annotator()
    labelled = run(annotator, rows, tmp_path)
    assert labelled["id"] == [0, 1, 3, 4, 6, 7]
    assert annotator.report is not None
    summary = annotator.report.values["splits"]["train"]
    assert summary["dropped"] == {"bad row": 1, "too long": 1}
    assert (summary["rows"], summary["scored"], summary["pairs"]) == (8, 7, 6)
    kept = run(annotator, rows, tmp_path, keep_unusable=True)
    assert kept["id"] == list(range(8))
    with pytest.raises(DataError, match=r"row 5: too long"):
        run(fake_annotator(on_error="raise"), rows[:2] + rows[3:4] * 3 + rows[5:], tmp_path)


def test_a_split_without_a_usable_row_does_not_take_the_others_along(tmp_path: Path) -> None:
    good = datasets.Dataset.from_list(pairs(4))
    bad = good.map(lambda row: {"chosen": "lazy " * 600})
    splits = fake_annotator().run(datasets.DatasetDict(good=good, bad=bad), cache_dir=str(tmp_path))
    assert (len(splits["good"]), len(splits["bad"])) == (4, 0)
    assert splits["good"].features == splits["bad"].features
    with pytest.raises(DataError, match="different kinds"):
        fake_annotator().run(
            datasets.DatasetDict(a=good, b=datasets.Dataset.from_list(candidates())),
            cache_dir=str(tmp_path),
        )


def test_what_is_written_does_not_depend_on_how_rows_are_sharded(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "a", "x": 1}
    other = {"role": "assistant", "content": "b b", "x": 2}
    prompts: list[Any] = [None, None, [{"role": "user", "content": "q"}]]
    rows = [{"prompt": p, "chosen": [answer], "rejected": [other]} for p in prompts]
    kept = [
        run(fake_annotator(), rows, tmp_path, shard_rows=size, keep_unusable=True)
        for size in (2, 3)
    ]
    assert kept[0].features == kept[1].features
    assert kept[0]["chosen"][0] == [answer]


def test_a_bad_row_keeps_its_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "responses": None}, {"prompt": "q", "responses": ["a", "bb"]}]
    kept = run(fake_annotator(), rows, tmp_path, keep_unusable=True)
    assert kept["prompt"][0] == kept["prompt"][1] == [{"role": "user", "content": "q"}]
    prompts = [[{"role": "user", "content": text}] for text in (None, "q")]
    rows = [{"prompt": prompt, "responses": ["a", "bb"]} for prompt in prompts]
    kept = run(fake_annotator(), rows, tmp_path, keep_unusable=True)
    assert list(kept["prompt"]) == prompts


def test_data_without_a_usable_row_is_an_error_that_says_why(tmp_path: Path) -> None:
    close = "margin below min_margin"
    said = f"Not one of the 10 rows could be labelled: row 0, row 1, row 2: {close}; and 7 more"
    with pytest.raises(DataError, match=said):
        run(fake_annotator(min_margin=1e6), candidates(), tmp_path)
    bad = datasets.Dataset.from_list([{"prompt": "q", "chosen": ["a"], "rejected": ["b", "c"]}])
    with pytest.raises(DataError, match=r"row 0 of x, row 0 of y: bad row: .*RM-Bench"):
        fake_annotator().run(datasets.DatasetDict(x=bad, y=bad), cache_dir=str(tmp_path))


def test_streams_and_splits(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(pairs())
    annotator = fake_annotator()
    plain = run(annotator, pairs(), tmp_path)
    stream = annotator.run(data.to_iterable_dataset(), cache_dir=str(tmp_path), shard_rows=4)
    assert list(stream) == list(plain)
    both = annotator.run(
        datasets.DatasetDict(a=data, b=data.select([3, 1])), cache_dir=str(tmp_path)
    )
    assert both["b"]["id"] == [3, 1]
    assert annotator.report is not None and set(annotator.report.values["splits"]) == {"a", "b"}


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        ([{"prompt": "q"}], {}, DataError, "Dataset.from_list"),
        (datasets.Dataset.from_dict({"prompt": []}), {}, DataError, "is empty"),
        (datasets.DatasetDict(), {}, DataError, "no split"),
        (datasets.Dataset.from_list(pairs()), {"num_proc": 0}, ConfigError, "num_proc"),
        (datasets.Dataset.from_list(pairs()), {"shard_rows": "x"}, ConfigError, "shard_rows"),
    ],
)
def test_what_cannot_be_run_is_refused(
    data: Any, options: dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        fake_annotator().run(data, **options)


def test_a_bad_row_that_is_kept_stops_a_run_that_is_to_stop(tmp_path: Path) -> None:
    rows = [*pairs(5), {**pairs(1)[0], "chosen": None}]
    assert len(run(fake_annotator(), rows, tmp_path)) == 5
    with pytest.raises(DataError, match="row 5: "):
        run(fake_annotator(on_error="raise"), rows, tmp_path)


def test_rows_that_are_left_out_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*pairs(2), {**pairs(1)[0], "chosen": None}, {**pairs(1)[0], "rejected": None}]
    run(fake_annotator(), rows, tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(said) == 1
    assert "row 2: bad row: " in said[0] and "row 3: bad row: " in said[0]
    run(fake_annotator(), rows, tmp_path, keep_unusable=True)
    assert "left out" not in capsys.readouterr().err
