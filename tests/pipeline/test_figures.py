"""The figures of a pipeline against closed forms, scikit-learn, and a bootstrap written out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from drsow_plugin import DataError
from drsow_plugin.bootstrap import Estimate
from drsow_plugin.pipeline.evaluation import Answer, Evaluation, Preferred
from drsow_plugin.pipeline.figures import (
    ArmFigures,
    Figure,
    figures_of,
    judge_accuracy,
    length_controlled,
)
from drsow_plugin.pipeline.tables import as_json, as_seeds, as_table

NORMAL = 1.959964  # half of the 95 % of a normal distribution, in standard deviations


def evaluation(
    judge: Sequence[float | None], *, candidates: int = 1, first: int = 0, **columns: Any
) -> Evaluation:
    """Return an evaluation of answers with these rewards of a judge, to prompts with numbers."""
    answers = []
    for index, reward in enumerate(judge):
        prompt, number = divmod(index, candidates)
        more = {name: values[index] for name, values in columns.items()}
        usual = {"reward": None, "divergence": None, "tokens": 10, "characters": 40, "cut": False}
        answers.append(Answer(f"p{prompt + first}", number, reward, **{**usual, **more}))
    return Evaluation({}, tuple(answers))


def pairs(margins: Sequence[float], prompts: Sequence[str] | None = None) -> Evaluation:
    """Return an evaluation of one answer, and of labelled pairs with these margins."""
    names = prompts or [f"q{n}" for n in range(len(margins))]
    made = tuple(Preferred(name, m, None, 0) for name, m in zip(names, margins, strict=True))
    return replace(evaluation([0.0]), pairs=made)


def figure(found: Sequence[ArmFigures], name: str, arm: str = "given") -> Figure:
    (of,) = [one for one in found if one.arm == arm]
    (one,) = [one for one in of.figures if one.name == name]
    return one


def ends(estimate: Estimate | None) -> tuple[float, float]:
    assert estimate is not None and estimate.low is not None and estimate.high is not None
    return estimate.low, estimate.high


def controlled(won: np.ndarray, longer: np.ndarray, weights: np.ndarray | None = None) -> float:
    counts = np.ones(len(won)) if weights is None else np.asarray(weights, dtype=float)
    return length_controlled(won, longer, counts)


def by_scikit_learn(won: np.ndarray, longer: np.ndarray, weights: np.ndarray) -> float:
    """Return the win rate at equal length of a regression without a penalty; ties are two rows."""
    mean = np.average(longer, weights=weights)
    spread = np.sqrt(np.average((longer - mean) ** 2, weights=weights))
    x = np.tanh(longer / spread)[:, None]
    rows = np.concatenate([x, x])
    labels = np.repeat([1, 0], len(won))
    shares = np.concatenate([weights * won, weights * (1 - won)])
    kept = shares > 0
    fit = LogisticRegression(C=1e10, tol=1e-10, max_iter=1000)
    fit.fit(rows[kept], labels[kept], sample_weight=shares[kept])
    return float(1 / (1 + np.exp(-fit.intercept_[0])))


@pytest.mark.parametrize("slope", [0.0, 0.5, -1.0])
@pytest.mark.parametrize("middle", [0.0, 60.0, -60.0])
def test_the_win_rate_at_equal_length_is_that_of_scikit_learn(slope: float, middle: float) -> None:
    chance = np.random.default_rng(3)
    longer = chance.normal(middle, 100, 3000).round()
    won = (chance.random(3000) < 1 / (1 + np.exp(-0.4 - slope * longer / 100))).astype(float)
    won[::11] = 0.5
    weights = chance.integers(1, 4, 3000).astype(float)
    found = controlled(won, longer, weights)
    assert found == pytest.approx(by_scikit_learn(won, longer, weights), abs=2.5e-3)
    plain = np.average(won, weights=weights)
    if slope and middle:
        assert abs(found - plain) > 0.02  # there is something to control for


def test_a_weight_counts_as_that_many_rows() -> None:
    chance = np.random.default_rng(1)
    won, longer = chance.integers(0, 3, 40) / 2, chance.normal(30, 80, 40)
    weights = chance.integers(1, 5, 40)
    repeated = controlled(np.repeat(won, weights), np.repeat(longer, weights))
    assert controlled(won, longer, weights) == pytest.approx(repeated, abs=1e-9)


def test_the_other_way_round_is_the_rest_to_one() -> None:
    chance = np.random.default_rng(2)
    won, longer = chance.integers(0, 3, 50) / 2, chance.normal(30, 80, 50)
    assert controlled(won, longer) + controlled(1 - won, -longer) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("length", [0.0, 25.0])
def test_with_one_length_for_all_it_is_the_plain_win_rate(length: float) -> None:
    won = np.array([1, 1, 1, 0.5, 0, 1, 0])
    assert controlled(won, np.full(7, length)) == pytest.approx(4.5 / 7, abs=1e-6)


def test_with_lengths_on_both_sides_of_each_result_it_is_the_plain_win_rate() -> None:
    won = np.repeat([1.0, 0.0, 0.5], [8, 4, 4])
    longer = np.tile([-50.0, 50.0], 8)
    assert controlled(won, longer) == pytest.approx(10 / 16, abs=1e-8)


def test_where_length_decides_everything_neither_wins() -> None:
    longer = np.array([-30.0, -20, -10, -5, 5, 10, 20, 30])
    won = (longer > 0).astype(float)
    assert controlled(won, longer) == pytest.approx(0.5, abs=1e-6)
    assert controlled(1 - won, longer) == pytest.approx(0.5, abs=1e-6)
    assert controlled(won[4:], longer[4:]) > 0.5  # all won, and all are longer
    assert controlled(np.ones(300), np.linspace(-9, 9, 300)) == pytest.approx(1, abs=1e-6)
    assert controlled(np.zeros(300), np.linspace(-9, 9, 300)) == pytest.approx(0, abs=1e-6)
    assert 0 < controlled(np.array([1.0]), np.array([7.0])) <= 1


def test_the_figure_of_an_arm_is_that_of_its_values() -> None:
    chance = np.random.default_rng(4)
    start = evaluation([0.0] * 60)
    judge, lengths = chance.normal(0.3, 1, 60), chance.integers(10, 90, 60)
    judge[:5] = 0.0
    given = evaluation([*judge], characters=[*map(int, lengths)])
    won = (np.sign(judge) + 1) / 2
    found = figures_of(start, {"given": [given]})
    assert figure(found, "win rate").estimate.value == pytest.approx(won.mean(), abs=1e-12)
    at_equal = figure(found, "win rate at equal length").estimate.value
    assert at_equal == pytest.approx(controlled(won, lengths - 40.0), abs=1e-9)
    assert at_equal != pytest.approx(won.mean(), abs=1e-4)


def test_the_interval_is_of_seeds_and_prompts() -> None:
    """Effects of seeds and of prompts that add up: variances over the counts do, too."""
    chance = np.random.default_rng(5)
    seeds, prompts = standard(chance, 12), standard(chance, 150)
    of_seeds, of_prompts = 0.5, 3.0
    start = evaluation([0.0] * 150, reward=[0.0] * 150)
    arm = [
        evaluation([0.0] * 150, reward=[*(2 + of_seeds * seed + of_prompts * prompts)])
        for seed in seeds
    ]
    found = figure(figures_of(start, {"given": arm}), "reward")
    low, high = ends(found.estimate)
    deviation = np.sqrt(of_seeds**2 / 12 + of_prompts**2 / 150)
    assert found.estimate.value == pytest.approx(2, abs=1e-9)
    # Of 1000 draws an end has a standard error of 0.085 deviations, and the width one of 0.12.
    assert (high - low) / 2 == pytest.approx(NORMAL * deviation, rel=0.13)
    assert (high + low) / 2 == pytest.approx(2, abs=0.35 * deviation)
    assert found.seeds == pytest.approx(2 + of_seeds * seeds, abs=1e-9)
    assert found.estimate.n == 12 * 150
    one = figure(figures_of(start, {"given": arm[:1]}), "reward")
    assert width(one.estimate) / 2 == pytest.approx(NORMAL * of_prompts / 150**0.5, rel=0.13)


def standard(chance: np.random.Generator, count: int) -> np.ndarray:
    """Return normal numbers with a mean of 0 and a variance of 1 to the last digit."""
    drawn = chance.normal(size=count)
    return np.asarray((drawn - drawn.mean()) / drawn.std())


def width(estimate: Estimate | None) -> float:
    low, high = ends(estimate)
    return high - low


def test_the_interval_is_that_of_a_pigeonhole_bootstrap_written_out() -> None:
    chance = np.random.default_rng(6)
    values = chance.normal(size=(4, 1)) + chance.normal(size=(1, 40)) + chance.normal(size=(4, 40))
    values[chance.random((4, 40)) < 0.1] = np.nan
    start = evaluation([0.0] * 40)
    arm = [evaluation([None if np.isnan(v) else float(v) for v in row]) for row in values]
    found = figure(figures_of(start, {"given": arm}), "win rate").estimate
    won = np.where(np.isnan(values), np.nan, (np.sign(values) + 1) / 2)
    draws = [
        np.nanmean(won[np.ix_(chance.integers(4, size=4), chance.integers(40, size=40))])
        for _ in range(4000)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.value == pytest.approx(np.nanmean(won), abs=1e-12)
    assert found.n == int((~np.isnan(won)).sum())
    assert ends(found) == pytest.approx((low, high), abs=0.4 * float(np.std(draws)))


@pytest.mark.parametrize("kind", ["answers", "pairs"])
def test_what_belongs_to_one_prompt_is_drawn_together(kind: str) -> None:
    """Eight copies of all that is known of a prompt make no interval narrower."""
    chance = np.random.default_rng(7)
    rewards = chance.normal(0.2, 1, 60)
    copies = [float(reward) for reward in np.repeat(rewards, 8)]
    if kind == "pairs":
        name, names = "implicit accuracy", [f"q{n // 8}" for n in range(480)]
        start = evaluation([0.0])
        once, often = pairs([*rewards]), pairs(copies, names)
        firsts = lasts = start
    else:
        name = "win rate"
        once, often = evaluation([*rewards]), evaluation(copies, candidates=8)
        firsts, lasts = evaluation([0.0] * 60), evaluation([0.0] * 480, candidates=8)
    single = figure(figures_of(firsts, {"given": [once]}), name).estimate
    many = figure(figures_of(lasts, {"given": [often]}), name).estimate
    assert many.value == pytest.approx(single.value, abs=1e-12)
    assert width(many) == pytest.approx(width(single), rel=0.17)


def test_prompts_with_more_pairs_weigh_more() -> None:
    found = figures_of(
        evaluation([0.0]), {"given": [pairs([1, 1, 1, -1], ["q0", "q0", "q0", "q1"])]}
    )
    assert figure(found, "implicit accuracy").estimate.value == 0.75


def test_ties_count_half_and_what_is_not_known_not_at_all() -> None:
    start = evaluation([1.0, 1.0, 1.0, 1.0, None, 1.0])
    given = evaluation([2.0, 1.0, 0.0, 1.0, 5.0, None])
    found = figures_of(start, {"given": [given, replace(given)]})
    wins = figure(found, "win rate").estimate
    assert (wins.value, wins.n) == (0.5, 8)
    assert figure(found, "win rate").seeds == (0.5, 0.5)
    accuracy = figures_of(evaluation([0.0]), {"given": [pairs([1.0, 0.0, -1.0, 0.0, 2.0])]})
    assert figure(accuracy, "implicit accuracy").estimate.value == 0.6


def test_a_figure_that_nothing_is_known_of_is_left_out() -> None:
    found = figures_of(evaluation([None] * 3), {"given": [evaluation([None] * 3)]})
    assert [figure.name for figure in found[0].figures] == ["length"]


def test_figures_are_differences_to_the_start_and_a_divergence_is_itself() -> None:
    start = evaluation([0.0] * 3, reward=[1.0, 2.0, 3.0], tokens=[5, 6, 7], divergence=[9.0] * 3)
    given = evaluation(
        [1.0] * 3, reward=[2.0, 4.0, 6.0], tokens=[7, 8, 12], divergence=[1.0, 2.0, 6.0]
    )
    found = figures_of(start, {"given": [given]})
    values = {one.name: (one.estimate.value, one.unit) for one in found[0].figures}
    assert values == {
        "win rate": (1.0, ""),
        "win rate at equal length": (pytest.approx(1, abs=1e-6), ""),
        "reward": (2.0, "nats"),
        "length": (3.0, "tokens"),
        "divergence": (3.0, "nats"),
    }


def test_the_difference_to_random_labels_is_over_the_same_draws() -> None:
    chance = np.random.default_rng(8)
    prompts = chance.normal(0, 5, 80)
    start = evaluation([0.0] * 80, reward=[0.0] * 80)
    seeds = range(3)

    def arm(ahead: float, noise: float) -> list[Evaluation]:
        return [
            evaluation([0.0] * 80, reward=[*(prompts + ahead + chance.normal(0, noise, 80))])
            for _ in seeds
        ]

    random = arm(0, 0.0)
    arms = {"random": random, "same": random, "given": arm(0.5, 0.1)}
    found = figures_of(start, arms)
    same = figure(found, "reward", "same").over_random
    assert same is not None and same.value == 0 and same.low is None
    ahead = figure(found, "reward", "given")
    assert ahead.over_random is not None
    assert ahead.over_random.value == pytest.approx(0.5, abs=0.03)
    assert width(ahead.over_random) < 0.1 < 1 < width(ahead.estimate)
    low, high = ends(ahead.over_random)
    assert 0 < low < ahead.over_random.value < high
    assert figure(found, "reward", "random").over_random is None
    without = figures_of(start, {"given": arms["given"]})
    assert figure(without, "reward").over_random is None
    assert figure(without, "reward").estimate == ahead.estimate


def test_a_random_arm_of_other_seeds_is_compared_all_the_same() -> None:
    chance = np.random.default_rng(9)
    start = evaluation([0.0] * 30)
    arms = {
        "random": [evaluation([*chance.normal(0, 1, 30)])],
        "given": [evaluation([*chance.normal(1, 1, 30)]) for _ in range(2)],
    }
    found = figures_of(start, arms)
    difference = figure(found, "win rate").over_random
    assert difference is not None
    values = [figure(found, "win rate", arm).estimate.value for arm in ("given", "random")]
    assert difference.value == pytest.approx(values[0] - values[1], abs=1e-12)


@pytest.mark.parametrize("where", ["seeds", "arms", "start", "repeats"])
def test_evaluations_of_other_prompts_are_refused(where: str) -> None:
    usual = evaluation([0.0, 1.0, 2.0])
    other = evaluation([0.0, 1.0, 2.0], first=1)
    arms = {"given": [usual, usual], "random": [usual, usual]}
    start = usual
    if where == "seeds":
        arms["given"] = [usual, other]
    elif where == "arms":
        arms["random"] = [other, other]
        start = replace(usual, answers=(*usual.answers, other.answers[-1]))
    elif where == "start":
        start = other
    else:
        twice = replace(usual, answers=usual.answers * 2)
        start, arms = twice, {"given": [twice]}
    with pytest.raises(DataError, match=r"same (rows|prompts)|twice|repeat"):
        figures_of(start, arms)


def test_the_table_has_an_arm_a_row() -> None:
    judged = Figure("win rate", "", Estimate(0.6123, 0.5, 0.704, 9), (0.6,))
    far = Figure("divergence", "nats", Estimate(-1.25, None, None, 9), (1.0,))
    lines = as_table(
        [ArmFigures("given", (judged, far)), ArmFigures("random", (far,))]
    ).splitlines()
    assert lines[:4] == [
        "| trained on | win rate (%) | divergence (nats) |",
        "| --- | --- | --- |",
        "| given | 61.2 (50.0 to 70.4) | -1.25 |",
        "| random |  | -1.25 |",
    ]
    assert "95 %" in lines[-1]


def test_the_figures_are_json_even_where_a_seed_has_none() -> None:
    start = evaluation([0.0, 0.0])
    found = figures_of(start, {"given": [evaluation([1.0, -1.0]), evaluation([None, None])]})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    read = json.loads(as_json(found, {"kind": "pipeline"}), parse_constant=refuse)
    assert read["kind"] == "pipeline" and read["arms"][0]["arm"] == "given"
    (wins,) = [one for one in read["arms"][0]["figures"] if one["name"] == "win rate"]
    assert wins["estimate"]["value"] == 0.5 and wins["seeds"] == [0.5, None]


def test_the_judge_is_measured_on_pairs_that_people_labelled() -> None:
    judged = tuple(
        Preferred(f"p{n}", None, margin, 0) for n, margin in enumerate([1.0, -1.0, 0.0, 2.0])
    )
    found = judge_accuracy(Evaluation({}, (), judged))
    assert found is not None and (found.value, found.n) == (2.5 / 4, 4)
    assert judge_accuracy(pairs([1.0, -1.0])) is None


def test_seeds_are_shown_one_by_one_and_less_random_labels() -> None:
    less = Estimate(0.05, -0.01, 0.1, 4)
    shown = as_seeds(
        [
            ArmFigures(
                "given",
                (
                    Figure("win rate", "", Estimate(0.55, 0.5, 0.6, 4), (0.5, 0.6), less),
                    Figure("reward", "nats", Estimate(0.5, None, None, 4), (1.0, np.nan), None),
                    Figure("length", "tokens", less, (1.0,), Estimate(-0.5, None, None, 1)),
                ),
            )
        ]
    )
    assert shown.splitlines()[2:] == [
        "| given | win rate | 50.0, 60.0 | +5.0 (-1.0 to +10.0) |",
        "| given | reward | +1.00, none |  |",
        "| given | length | +1.00 | -0.50 |",
    ]
