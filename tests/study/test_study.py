"""What a study says of models whose margins are known: accuracies, parts, gaps, the best pair."""

from __future__ import annotations

import datetime
import json
from itertools import permutations
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from helpers.studies import FLOOR, known_model, random_margins, study_rows

from drsow_plugin import ConfigError, DataError, Study, StudyReport
from drsow_plugin.study.analysis import LIKELIHOOD, LOGLIKELIHOOD

ROWS = 60
MARGINS = random_margins(5, ROWS)
NAMES = [f"m{n}" for n in range(5)]


def models(**options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: known_model(MARGINS[n], name, **options.get(name, {})) for n, name in enumerate(NAMES)
    }


def study(folder: Path, rows: Any = None, options: Any = None, **more: Any) -> StudyReport:
    rows = study_rows(ROWS) if rows is None else rows
    made = Study(models(**(options or {})), **{"resamples": 100, **more})
    return made.run(rows, cache_dir=str(folder))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def report(cache: Path) -> StudyReport:
    """Return what is said of the five models, on rows of one length."""
    return study(cache)


def test_the_accuracy_of_every_ordered_pair_is_that_of_the_margins(report: StudyReport) -> None:
    assert [(p.strong, p.weak) for p in report.pairs] == list(permutations(NAMES, 2))
    for pair in report.pairs:
        margins = MARGINS[NAMES.index(pair.strong)] - MARGINS[NAMES.index(pair.weak)]
        assert pair.accuracy.value == pytest.approx((margins > 0).mean())
        assert pair.margin == pytest.approx(margins.mean())
        assert pair.ties == 0 and pair.accuracy.n == ROWS
        back = report.pair(pair.weak, pair.strong).accuracy
        assert back.value + pair.accuracy.value == pytest.approx(1)
        assert back.low is not None and pair.accuracy.high is not None
        assert back.low + pair.accuracy.high == pytest.approx(1)
        assert pair.accuracy.low is not None
        assert pair.accuracy.low < pair.accuracy.value < pair.accuracy.high
    assert report.rows == report.of_rows == report.prompts == ROWS
    assert report.date == datetime.date.today().isoformat()


def test_the_baselines_are_each_models_own_likelihood_and_the_longer_response(
    report: StudyReport,
) -> None:
    for n, model in enumerate(report.models):
        assert model.likelihood.value == pytest.approx((MARGINS[n] > 0).mean())
        total = sum(len(f"right {row}") for row in range(ROWS))
        assert model.loglikelihood == pytest.approx((FLOOR + MARGINS[n]).sum() / total)
    assert report.length.value == 0.5  # "right 7" and "wrong 7"


def test_how_often_a_pair_prefers_the_longer_response_is_counted(
    report: StudyReport, cache: Path
) -> None:
    assert {pair.longer for pair in report.pairs} == {None}  # all are of one length
    rows = study_rows(ROWS)
    for n, row in enumerate(rows):
        row["chosen"] = row["chosen"].replace(" ", "  " if n < 10 else " ")
        row["rejected"] = row["rejected"].replace(" ", "   " if n >= 30 else " ")
    for pair in study(cache, rows).pairs:
        margins = MARGINS[NAMES.index(pair.strong)] - MARGINS[NAMES.index(pair.weak)]
        longer = [*(margins[:10] > 0), *(margins[30:] < 0)]
        assert pair.longer == pytest.approx(np.mean(longer)) and 0 < pair.longer < 1


def test_accuracies_are_given_by_subset(cache: Path) -> None:
    subset = ["easy" if n < 20 else "hard" for n in range(ROWS)]
    report = study(cache, study_rows(ROWS, subset=subset))
    assert report.subsets == {"easy": 20, "hard": 40} and report.sections == {}
    for pair in report.pairs:
        margins = MARGINS[NAMES.index(pair.strong)] - MARGINS[NAMES.index(pair.weak)]
        assert pair.subsets["easy"].value == pytest.approx((margins[:20] > 0).mean())
        assert pair.subsets["hard"].value == pytest.approx((margins[20:] > 0).mean())
        assert pair.subsets["hard"].n == 40
    named = study(cache, study_rows(ROWS, kind=subset), group_column="kind")
    assert [p.subsets for p in named.pairs] == [p.subsets for p in report.pairs]


def test_the_mean_a_token_is_another_reward_of_the_same_log_probs(
    report: StudyReport, cache: Path
) -> None:
    mean = study(cache, reduction="mean")
    assert [model.scored for model in mean.models] == [0] * 5
    assert mean.scoring["reduction"] == "mean"
    assert mean.pair("m4", "m0").margin != report.pair("m4", "m0").margin


def test_given_scores_are_held_against_all_rows(cache: Path) -> None:
    scores = {name: {"scores": {"MMLU": 10.0 * n}} for n, name in enumerate(NAMES)}
    report = study(cache, options=scores)
    (law,) = [law for law in report.laws if law.score == "MMLU"]
    assert not law.held_out
    pairs = list(permutations(range(5), 2))
    x = [10.0 * (s - w) for s, w in pairs]
    y = [report.pair(NAMES[s], NAMES[w]).accuracy.value for s, w in pairs]
    assert law.pearson is not None
    assert law.pearson.value == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert law.pearson.low is not None and law.pearson.low > 0.5  # later models are better
    assert law.agreeing == 1.0


def test_gaps_of_the_rows_themselves_are_of_other_rows_than_the_accuracies(
    report: StudyReport,
) -> None:
    laws = {law.score: law for law in report.laws}
    assert set(laws) == {LIKELIHOOD, LOGLIKELIHOOD} and all(law.held_out for law in laws.values())
    chance = np.random.default_rng(0).permutation(ROWS)
    scored, rest = chance[: ROWS // 2], chance[ROWS // 2 :]
    own = (MARGINS[:, scored] > 0).mean(axis=1)
    assert laws[LIKELIHOOD].gaps == pytest.approx(own[:, None] - own)
    lengths = np.array([len(f"right {row}") for row in range(ROWS)])
    nats = (FLOOR + MARGINS[:, scored]).sum(axis=1) / lengths[scored].sum()
    assert laws[LOGLIKELIHOOD].gaps == pytest.approx(nats[:, None] - nats)
    for law in laws.values():
        won = (MARGINS[4, rest] > MARGINS[0, rest]).mean()
        assert law.accuracies[4, 0] == pytest.approx(won)


@pytest.mark.slow
def test_the_best_pair_is_chosen_within_memory_and_cost(cache: Path) -> None:
    sizes = {name: {"memory": f"{n + 1}GB", "cost": n} for n, name in enumerate(NAMES)}
    report = study(cache, options=sizes)
    best = max(report.pairs, key=lambda pair: pair.accuracy.value)
    assert report.choice is not None and report.choice.candidates == 20
    assert (report.choice.strong, report.choice.weak) == (best.strong, best.weak) == ("m4", "m0")
    assert best.memory == 6_000_000_000 and best.cost == 4
    small = study(cache, options=sizes, memory="5GB").choice
    assert small is not None and small.candidates == 8  # of 1+2, 1+3, 1+4 and 2+3 GB
    cheap = study(cache, options=sizes, memory="7GB", max_cost="2").choice
    assert cheap is not None and cheap.candidates == 4  # m0 with m1, and with m2
    nothing = study(cache, options=sizes, max_cost=0.5)
    assert nothing.choice is None and "No pair is within the limits" in str(nothing)
    del sizes["m4"]["memory"]
    partly = study(cache, options=sizes, memory="100GB")
    assert partly.choice is not None and partly.choice.candidates == 12 and partly.unknown == 8


def test_rows_of_a_single_prompt_say_nothing_of_new_rows(tmp_path: Path) -> None:
    rows = [{**row, "prompt": "Question?"} for row in study_rows(6)]
    report = study(tmp_path, rows)
    assert report.prompts == 1 and report.choice is not None
    assert report.choice.expected is None and report.choice.fall is None
    assert "on new rows" not in str(report) and report.laws == ()
    assert len(report.save(tmp_path / "out")) == 8


def test_two_models_have_no_law(cache: Path) -> None:
    both = {name: model for name, model in models().items() if name in ("m0", "m4")}
    report = Study(both, resamples=200).run(study_rows(ROWS), cache_dir=str(cache))
    assert report.laws == () and len(report.pairs) == 2
    assert "gap" not in str(report)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_figures_and_another_gives_others(
    report: StudyReport, cache: Path
) -> None:  # after the report's run: what was scored by which one is told, too
    first, second = study(cache).values(), study(cache).values()
    assert first == second
    other = study(cache, seed=1).values()
    pairs, others = ([p["accuracy"] for p in of["pairs"]] for of in (first, other))
    assert [p["value"] for p in pairs] == [p["value"] for p in others]
    assert [p["low"] for p in pairs] != [p["low"] for p in others]


def test_all_figures_are_plain_values(report: StudyReport) -> None:
    values = report.values()
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_a_task_is_studied_by_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from drsow_plugin.harness.benchmarks import rewardbench

    weights = {"chat": {"a": 3, "b": 1}, "safety": {"c": 1}}
    monkeypatch.setattr(rewardbench, "WEIGHTS", {"chat_hard": {}, "reasoning": {}, **weights})
    monkeypatch.setattr(rewardbench, "is_complete", lambda section, _subsets: section == "chat")
    subset = ["a"] * 20 + ["b"] * 10 + ["c"] * 30
    file = tmp_path / "rows.parquet"
    datasets.Dataset.from_list(study_rows(ROWS, subset=subset)).to_parquet(file)
    from drsow_plugin.study.rows import read_task

    data = read_task("rewardbench", {"data": str(file)})
    made = Study(models(), resamples=200)
    report = made.run_on(data, cache_dir=str(tmp_path / "cache"))
    assert report.sections == {"rewardbench_chat": 30, "rewardbench_safety": 30}
    assert report.subsets == {"a": 20, "b": 10, "c": 30}
    won = MARGINS[4] > MARGINS[1]
    chat = report.pair("m4", "m1").sections["rewardbench_chat"]
    assert chat.value == pytest.approx((3 * won[:20].mean() + won[20:30].mean()) / 4)
    safety = report.pair("m4", "m1").sections["rewardbench_safety"]
    assert safety.value == pytest.approx(won[30:].mean())


def test_llmbar_is_read_from_the_package() -> None:
    from drsow_plugin.study.rows import read_task

    data = read_task("llmbar", {}, limit=5)
    assert len(data.rows) == 25 and len({row.section for row in data.rows}) == 5
    assert len(read_task("llmbar_natural", {}).rows) == 100
    with pytest.raises(ConfigError, match=r"Unknown task 'llmbr'\. Did you mean 'llmbar'\?"):
        read_task("llmbr", {})
    with pytest.raises(ConfigError, match="rewardbench, rewardbench_chat"):
        read_task("rewardbench2", {})  # of more than two responses


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"prompt": "q", "chosen": "a"}], "cannot be read as pairs as preference data"),
        ([{"prompt": "q", "chosen": "a", "rejected": None}], "no preference pair that can be read"),
        (datasets.DatasetDict(a=datasets.Dataset.from_list(study_rows(2))), "one data set"),
        (study_rows(1), "Only 1 of 1 rows"),
    ],
)
def test_data_without_pairs_is_refused(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        study(tmp_path, data)
