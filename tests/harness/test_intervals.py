"""Intervals in lm-eval's results, against scipy and plain loops."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import write
from helpers.harness import Scorer, run
from lm_eval.utils import make_table
from scipy import stats

from drsow_plugin.harness.benchmarks import m_rewardbench, rewardbench
from drsow_plugin.harness.benchmarks.rewardbench2 import RULE, redraw, ties_score
from drsow_plugin.harness.intervals import (
    NONE,
    mean_draws,
    prompt_key,
    score_draws,
    share_ends,
    total_ends,
)
from drsow_plugin.harness.subsets import Partial, Rule, total_interval, total_score


@pytest.fixture
def chance() -> np.random.Generator:
    return np.random.default_rng(6)


def test_every_accuracy_of_a_task_has_the_interval_of_its_prompts(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"q {n // 3}", "chosen": "a" * (1 + n * 7 % 5), "rejected": f"{n:03}"}
        for n in range(60)
    ]
    file = write(tmp_path / "pairs.jsonl", rows)
    found = run(Scorer(len), ["preference"], metadata={"data": str(file)}, log_samples=True)
    metrics = found["results"]["preference"]
    right = np.array([len(row["chosen"]) > 3 for row in rows]).reshape(20, 3).mean(axis=1)
    expected = stats.bootstrap((right,), np.mean, method="percentile", n_resamples=5000, rng=1)
    assert metrics["acc,none"] == pytest.approx(right.mean())
    assert metrics["acc_interval,none"] == pytest.approx([*expected.confidence_interval], abs=0.03)
    for name in ("acc_tie_half", "acc_longer"):
        low, high = metrics[f"{name}_interval,none"]
        assert low < metrics[f"{name},none"] < high
    table = make_table(found)
    assert "|acc_interval" in table and f"[{metrics['acc_interval,none'][0]}" in table
    assert json.loads(json.dumps(metrics["acc_interval,none"])) == metrics["acc_interval,none"]


def test_a_single_prompt_has_no_interval(tmp_path: Path) -> None:
    file = write(tmp_path / "one.jsonl", [{"prompt": "q", "chosen": "aa", "rejected": "b"}] * 3)
    found = run(Scorer(len), ["preference"], metadata={"data": str(file)})
    assert found["results"]["preference"]["acc_interval,none"] == NONE
    assert share_ends([(1, None), (2, None)]) == NONE


def test_documents_of_one_prompt_share_a_key() -> None:
    one = {"prompt": [{"role": "user", "content": "q"}], "chosen": "a"}
    assert prompt_key(one) == prompt_key({**one, "chosen": "b"})
    assert prompt_key(one) != prompt_key({**one, "prompt": "q"})


def test_a_score_of_means_is_drawn_within_its_subsets(chance: np.random.Generator) -> None:
    shares = {"a": (150, 0.9), "b": (30, 0.4)}
    values = [
        (n, ((name,), float(chance.random() < share)))
        for name, (number, share) in shares.items()
        for n in range(number)
    ]

    def total(means: Mapping[str, float]) -> float:
        return (means["a"] + means["b"]) / 2

    rule = Rule("r", {"a": 150, "b": 30}, lambda doc, rewards: {}, total=total)
    low, high = total_interval(rule, values)
    of = {name: np.array([v for _, (own, v) in values if own == (name,)]) for name in shares}
    expected = stats.bootstrap(
        (of["a"], of["b"]),
        lambda a, b, axis: (a.mean(axis=axis) + b.mean(axis=axis)) / 2,
        method="percentile",
        n_resamples=5000,
        rng=2,
    ).confidence_interval
    assert low == pytest.approx(expected.low, abs=0.02)
    assert high == pytest.approx(expected.high, abs=0.02)
    assert total_interval(rule, values[1:]) == NONE  # partial, as its score is


def test_prompts_of_a_subset_that_repeat_are_drawn_together(chance: np.random.Generator) -> None:
    wins = (chance.random(40) < 0.5).astype(float)
    alone = [(n, (("a",), win)) for n, win in enumerate(wins)]
    first, again = mean_draws(alone)["a"], mean_draws(alone * 3)["a"]
    assert first.tolist() == pytest.approx(again.tolist()) and np.ptp(first) > 0.2


def test_a_document_of_two_subsets_is_drawn_for_both() -> None:
    values = [(n, (("leaf", "whole"), float(n % 2))) for n in range(20)]
    draws = mean_draws(values)
    assert draws["leaf"].tolist() == draws["whole"].tolist()


def test_any_other_score_is_drawn_document_by_document(chance: np.random.Generator) -> None:
    values = chance.exponential(1, 60).tolist()
    drawn = score_draws(values, lambda own: float(np.median(own)))
    expected = stats.bootstrap((values,), np.median, method="percentile", n_resamples=2000, rng=1)
    found = np.quantile(drawn, (0.025, 0.975))
    assert found == pytest.approx([*expected.confidence_interval], abs=0.1)
    assert np.isnan(score_draws(values, lambda own: Partial())).all()
    assert total_ends({"a": np.array([np.nan, 0.5])}, lambda means: means["a"]) == NONE


def test_a_tied_prompt_is_drawn_with_its_reference(chance: np.random.Generator) -> None:
    gaps, spreads = chance.normal(1, 2, (25, 2)), chance.exponential(1, 25)
    own = [("ref", n, 0.0, float(gaps[n, 0])) for n in range(25)]
    own += [("tied", n, float(spreads[n]), float(gaps[n, 1])) for n in range(25)]
    found = []
    for seed in range(300):
        drawn = redraw(own, np.random.default_rng(seed))
        assert len(drawn) == 50
        assert {n for kind, n, *_ in drawn if kind == "ref"} == set(range(25))
        pairs = {n: gap for kind, n, _, gap in drawn if kind == "ref"}
        tied = {n: gap for kind, n, _, gap in drawn if kind == "tied"}
        whole = {(float(a), float(b)) for a, b in gaps}
        assert {(pairs[n], tied[n]) for n in pairs} <= whole
        found.append(ties_score(drawn))
    assert min(found) < ties_score(own) < max(found)
    rule = Rule("r", {"Ties": 50}, lambda doc, rewards: {}, RULE.of_subset, draw=redraw)
    low, high = total_interval(rule, [(n, (("Ties",), value)) for n, value in enumerate(own)])
    assert low < ties_score(own) < high


@pytest.mark.parametrize("section", ["chat", "reasoning"])
def test_a_section_of_rewardbench_weighs_its_subsets(
    section: str, chance: np.random.Generator
) -> None:
    sizes = rewardbench.WEIGHTS[section] | ({"math-prm": 447} if section == "reasoning" else {})
    rows = [(name, float(chance.random() < 0.7)) for name, n in sizes.items() for _ in range(n)]
    low, high = rewardbench.section_interval(section, list(enumerate(rows)))
    score = rewardbench.section_score(section, rows)
    assert low < score < high
    weights = rewardbench.WEIGHTS[section]
    variance = sum((w / sum(weights.values())) ** 2 * 0.21 / sizes[n] for n, w in weights.items())
    assert (high - low) / (2 * 1.96) == pytest.approx(np.sqrt(variance), rel=0.15)
    assert rewardbench.section_interval(section, list(enumerate(rows[1:]))) == NONE


def test_categories_of_m_rewardbench_weigh_their_subsets(chance: np.random.Generator) -> None:
    rows = [
        (category, subset, float(chance.random() < 0.7))
        for category, subsets in rewardbench.WEIGHTS.items()
        for subset in subsets
        for _ in range(m_rewardbench.SIZES[subset])
    ]
    counted = [((subset, category), (subset, win)) for category, subset, win in rows]
    low, high = total_interval(m_rewardbench.RULE, list(enumerate(counted)))
    assert low < total_score(m_rewardbench.RULE, counted) < high and high - low < 0.08
