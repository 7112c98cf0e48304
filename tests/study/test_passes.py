"""N models cost N passes, whatever is killed, added or repeated; what is missing is told."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import drsow
from helpers.preferences import pairs
from helpers.small_disk import small_disk
from helpers.studies import FLOOR, answered, known_model, random_margins, study_rows

from drsow_plugin import ConfigError, DataError, DrSoW, EngineError, LanguageModel, Problem
from drsow_plugin.errors import StorageError
from drsow_plugin.models.weights import Weights
from drsow_plugin.study import passes
from drsow_plugin.study.options import parse_study
from drsow_plugin.study.passes import Measured, measure
from drsow_plugin.study.rows import read_data

ROWS = 140
MARGINS = random_margins(4, ROWS)


def known(count: int = 3) -> dict[str, Any]:
    return {f"m{n}": known_model(MARGINS[n], f"m{n}") for n in range(count)}


def run(
    models: dict[str, Any], folder: Path, rows: list[dict[str, Any]] | None = None, **options: Any
) -> Measured:
    setup = parse_study(models, options)
    data = read_data(study_rows(ROWS) if rows is None else rows, setup.columns, "rows")
    return measure(setup, data, folder)


def test_each_model_reads_each_response_once(tmp_path: Path) -> None:
    models = known()
    measured = run(models, tmp_path)
    assert [answered(model) for model in models.values()] == [2 * ROWS] * 3
    assert [model.scored for model in measured.models] == [2 * ROWS] * 3
    assert np.allclose(measured.logprobs[..., 0] - measured.logprobs[..., 1], MARGINS[:3])
    assert (measured.logprobs[..., 1] == FLOOR).all()


def test_a_second_study_costs_nothing_and_a_further_model_one_pass(tmp_path: Path) -> None:
    first = run(known(), tmp_path)
    models = known(4)
    second = run(models, tmp_path)
    assert [answered(model) for model in models.values()] == [0, 0, 0, 2 * ROWS]
    assert (second.logprobs[:3] == first.logprobs).all()
    assert (second.tokens[:3] == first.tokens).all()


def test_rows_that_are_known_from_other_data_are_not_read_again(tmp_path: Path) -> None:
    run(known(), tmp_path, study_rows(120)[::-1])
    models = known()
    measured = run(models, tmp_path)
    assert [answered(model) for model in models.values()] == [2 * 20] * 3
    assert np.allclose(measured.logprobs[..., 0] - FLOOR, MARGINS[:3])


def test_the_same_response_to_the_same_prompt_is_read_once(tmp_path: Path) -> None:
    models = known()
    rows = study_rows(10)
    measured = run(models, tmp_path, [*rows, *rows])
    assert measured.logprobs.shape == (3, 20, 2)
    assert answered(models["m0"]) == 20


@pytest.mark.parametrize(
    "change", [{"end_of_turn": "false"}, {"max_length": "100"}, {"batch_size": "2"}]
)
def test_other_policies_do_not_mix_with_what_is_there(
    tmp_path: Path, change: dict[str, str]
) -> None:
    run(known(), tmp_path)
    models = known()
    run(models, tmp_path, **change)
    assert [answered(model) for model in models.values()] == [2 * ROWS] * 3


def test_another_reduction_needs_no_pass(tmp_path: Path) -> None:
    run(known(), tmp_path)
    models = known()
    run(models, tmp_path, reduction="mean")
    assert [answered(model) for model in models.values()] == [0, 0, 0]


@pytest.mark.fault(
    "shard",
    "a file of log-probs of a study is cut short",
    "it is scored again; the log-probs are the same",
)
def test_a_damaged_file_is_scored_again(tmp_path: Path) -> None:
    first = run(known(), tmp_path)
    files = sorted(tmp_path.glob("logprobs/*/*.parquet"))
    assert len(files) == 6  # two runs of rows a model
    files[0].write_bytes(files[0].read_bytes()[:-100])
    models = known()
    assert (run(models, tmp_path).logprobs == first.logprobs).all()
    assert sorted(answered(model) for model in models.values())[:2] == [0, 0]
    assert 0 < sum(answered(model) for model in models.values()) < 2 * ROWS


@pytest.mark.fault(
    "disk",
    "the disk of the cache of a study is full",
    "one line, and no model is blamed for it; with room the same study goes on",
)
def test_a_study_on_a_full_disk_ends_with_one_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 20) as disk:
        with pytest.raises(StorageError, match=r"^[^\n]* cannot be kept in [^\n]*: No space left"):
            run(known(2), disk.path)
        kept = len(list(disk.path.rglob("*.parquet")))
        assert 0 < kept < 4 and not list(disk.path.rglob("writing-*"))
        disk.resize(8000)
        models = known(2)
        assert not run(models, disk.path).failed
        assert 0 < sum(map(answered, models.values())) < 2 * 2 * ROWS


@pytest.mark.fault(
    "kill",
    "Ctrl-C in a study",
    "one line that says which models are finished; the same study goes on",
)
def test_an_interrupted_study_says_what_is_kept_and_goes_on(tmp_path: Path) -> None:
    whole = run(known(), tmp_path / "whole")
    models = known()
    answer = models["m1"]["source"]._logprobs

    def stop(pair: Any) -> Any:
        if len(models["m1"]["source"].calls) == 2:  # in the second run of rows
            raise KeyboardInterrupt
        return answer(pair)

    models["m1"]["source"]._logprobs = stop
    with pytest.raises(KeyboardInterrupt, match="1 of 3 models are finished, and what m1 has"):
        run(models, tmp_path)
    models = known()
    resumed = run(models, tmp_path)
    assert (resumed.logprobs == whole.logprobs).all()
    left = ROWS - passes.SHARD_ROWS
    assert [answered(model) for model in models.values()] == [0, 2 * left, 2 * ROWS]


def test_the_log_probs_are_those_of_a_model_alone_and_the_rewards_those_of_a_pair(
    tmp_path: Path, strong: str, weak: str
) -> None:
    measured = run({"a": strong, "b": weak}, tmp_path, pairs(6))
    rows = [(f"Question {n}?", row) for n, row in enumerate(pairs(6))]
    prompts = [prompt for prompt, _ in rows for _ in range(2)]
    responses = [row[side] for _, row in rows for side in ("chosen", "rejected")]
    alone = [logprob.total for logprob in LanguageModel(strong).logprobs(prompts, responses)]
    assert measured.logprobs[0].ravel() == pytest.approx(alone, abs=1e-4)
    rewards = [reward.reward for reward in DrSoW(strong, weak).score(prompts, responses)]
    difference = (measured.logprobs[0] - measured.logprobs[1]).ravel()
    assert difference == pytest.approx(rewards, abs=1e-4)
    assert [model.memory for model in measured.models] == [measured.models[0].memory] * 2
    assert (measured.models[0].memory or 0) > 1000


def test_weights_go_before_those_of_another_model_come(
    tmp_path: Path, strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded() -> int:
        return sum(type(thing) is Weights for thing in gc.get_objects())

    gc.collect()
    before, seen, run_pass = loaded(), [], passes._pass

    def watch(*arguments: Any) -> Any:
        seen.append(loaded() - before)
        return run_pass(*arguments)

    monkeypatch.setattr(passes, "_pass", watch)
    run(
        {"a": strong, "b": weak, "plain": {"source": strong, "template": "none"}},
        tmp_path,
        pairs(4),
    )
    assert seen == [0, 1, 0]  # the second is of the same weights as the first


def test_the_cache_command_names_the_models_and_removes_what_is_kept(tmp_path: Path) -> None:
    run(known(2), tmp_path)
    lines = drsow("cache", "--cache-dir", tmp_path).stdout.splitlines()
    assert len(lines) == 3 and lines[1].endswith(
        "template=none, tokenizer=<TokenizersBackend in memory>"
    )
    assert all("2 files" in line and "log-probs of <FakeEngine: m" in line for line in lines[1:])
    assert drsow("cache", "--cache-dir", tmp_path, "clean", "--yes").exit_code == 0
    assert not list(tmp_path.rglob("*.parquet"))


def test_models_that_share_weights_follow_each_other_and_are_told_as_sharing(
    tmp_path: Path, strong: str, weak: str
) -> None:
    models = {"a": strong, "b": weak, "plain": {"source": strong, "template": "none"}}
    measured = run(models, tmp_path, pairs(4))
    assert [model.asked.name for model in measured.models] == ["a", "b", "plain"]
    assert [model.weights for model in measured.models] == [0, 1, 0]


@pytest.mark.fault(
    "rows",
    "rows of a study that are too long, bad, or too big for the memory of one model",
    "left out for all models, and counted by reason",
)
def test_rows_that_one_model_cannot_score_are_left_out_for_all_and_counted(tmp_path: Path) -> None:
    rows = study_rows(10)
    rows[3]["chosen"] = "long " * 60 + "3"
    rows[5]["rejected"] = None  # type: ignore[assignment]
    models = known(2)
    models["m1"]["source"]._logprobs = failing(models["m1"]["source"]._logprobs, "right 8")
    measured = run(models, tmp_path, rows, max_length=50)
    assert [row.responses[0] for row in measured.rows] == [
        f"right {n}" for n in (0, 1, 2, 4, 6, 7, 9)
    ]
    assert measured.left_out == {
        "bad row": 1,
        "m0: too long": 1,
        "m1: too long": 1,
        "m1: out of memory": 1,
    }
    assert answered(models["m0"]) == 16  # the row that is too long is read by none
    models = known(2)
    again = run(models, tmp_path, rows, max_length=50)
    assert len(again.rows) == 8  # what memory ran out for is tried again, and nothing else
    assert [answered(model) for model in models.values()] == [0, 2 - 1]


def failing(answer: Any, text: str) -> Any:
    from helpers.studies import tokenizer

    def fail(pair: Any) -> Any:
        if tokenizer().decode(pair.response_ids).strip() == text:
            return Problem("out of memory", "…")
        return answer(pair)

    return fail


def test_models_with_too_few_rows_in_common_are_told_before_any_is_scored(tmp_path: Path) -> None:
    rows = study_rows(10)
    for row in rows[:6]:
        row["chosen"] = "long " * 60
    models = known(2)
    said = r"Only 4 of 10 rows of rows .*m0: too long 6, m1: too long 6.*overflow=truncate_prompt"
    with pytest.raises(DataError, match=said):
        run(models, tmp_path, rows, max_length=50)
    assert answered(models["m0"]) == 0
    assert len(run(models, tmp_path, rows, max_length=50, min_common=0.4).rows) == 4


@pytest.mark.fault(
    "model",
    "a model of a study is gone, or its server is down",
    "it is left out and named; the others are compared",
)
def test_a_model_that_cannot_be_opened_or_fails_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models: dict[str, Any] = {**known(3), "gone": str(tmp_path / "gone")}
    models["m1"]["source"]._logprobs = lambda _pair: EngineError("the server is down")
    measured = run(models, tmp_path)
    assert [model.asked.name for model in measured.models] == ["m0", "m2"]
    assert set(measured.failed) == {"gone", "m1"}
    assert "the server is down" in measured.failed["m1"]
    said = capsys.readouterr().err
    assert "the model gone is left out: " in said and "the model m1 is left out: " in said
    with pytest.raises(ConfigError, match=r"Fewer than two models can be used\. gone: .*gone"):
        run({"m0": known()["m0"], "gone": str(tmp_path / "gone")}, tmp_path)


def test_the_same_model_twice_is_refused_by_what_is_in_it(
    tmp_path: Path, strong: str, weak: str
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in Path(strong).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="a and b are the same model"):
        run({"a": strong, "w": weak, "b": str(copy)}, tmp_path)
