"""Figures of a study against scipy, plain loops and numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from helpers.resampling import own_prompts
from scipy import stats

from drsow_plugin.bootstrap import interval
from drsow_plugin.stats import pearson
from drsow_plugin.study.choice import best_shares, choose, cross_validated
from drsow_plugin.study.gaps import GapLaw, gap_law


@pytest.fixture
def chance() -> np.random.Generator:
    return np.random.default_rng(0)


def law(
    scores: np.ndarray,
    accuracy: Callable[[np.ndarray], np.ndarray],
    noise: float = 0.0,
    resamples: int = 500,
) -> GapLaw:
    """Return the law of scores whose pairs have accuracies that follow from the gap."""
    chance, models = np.random.default_rng(5), len(scores)
    effect = chance.normal(0, noise, models)
    accuracies = accuracy(scores[:, None] - scores) + effect[:, None] - effect
    drawn = np.broadcast_to(scores, (resamples, models))
    drawn_accuracies = np.broadcast_to(accuracies, (resamples, models, models))
    pair = (accuracies, drawn_accuracies)
    return gap_law("s", (scores, drawn), pair, seed=0, held_out=False)


def test_a_law_without_exception_has_correlation_1_in_every_resample() -> None:
    found = law(np.array([1.0, 2.0, 4.0, 7.0, 7.5]), lambda gap: 0.5 + 0.01 * gap)
    for estimate, pairs in (
        *((found.pearson, 20), (found.spearman, 20)),
        *((found.pearson_upward, 10), (found.spearman_upward, 10)),
    ):
        assert estimate is not None and estimate.n == pairs
        assert [estimate.value, estimate.low, estimate.high] == pytest.approx([1, 1, 1])
    assert found.agreeing == 1.0


def test_the_correlation_of_all_ordered_pairs_and_of_the_upward_ones_by_hand() -> None:
    # gaps 1, 3, 2 upward with accuracies 0.6, 0.7, 0.9: the upward correlation is 0.327,
    # that of the six points about (0, 1/2) is sum(xy) / sqrt(sum(xx) sum(yy)) = 0.875
    scores = np.array([0.0, 1.0, 3.0])
    accuracies = np.array([[0.5, 0.4, 0.3], [0.6, 0.5, 0.1], [0.7, 0.9, 0.5]])
    drawn = np.broadcast_to(scores, (100, 3)), np.broadcast_to(accuracies, (100, 3, 3))
    found = gap_law("s", (scores, drawn[0]), (accuracies, drawn[1]), 0, held_out=False)
    x, y = np.array([1.0, 3.0, 2.0]), np.array([0.1, 0.2, 0.4])
    assert found.pearson is not None and found.pearson_upward is not None
    assert found.pearson.value == pytest.approx((x @ y) / np.sqrt((x @ x) * (y @ y)))
    assert found.pearson_upward.value == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found.spearman_upward is not None and found.spearman_upward.value == pytest.approx(0.5)
    assert found.pearson.low is None  # three models are too few to be drawn from
    assert found.gaps[1, 0] == 1.0 and found.agreeing == 1.0


def test_an_interval_knows_that_pairs_share_models() -> None:
    found = law(np.arange(7.0), lambda gap: 0.5 + 0.01 * gap, noise=0.05)
    assert found.pearson is not None and found.pearson.low is not None
    assert found.pearson.high is not None
    pairs = ~np.eye(7, dtype=bool)
    x, y = found.gaps[pairs], found.accuracies[pairs]
    draws = np.random.default_rng(0).integers(len(x), size=(500, len(x)))
    low, high = interval(np.array([[pearson(x[d], y[d])] for d in draws], dtype=float))
    assert found.pearson.high - found.pearson.low > 1.5 * (high[0] - low[0])


def test_scores_that_are_all_the_same_have_no_law() -> None:
    found = law(np.ones(5), lambda gap: 0.5 + gap, noise=0.1)
    assert found.pearson is None and found.pearson_upward is None and found.agreeing is None


def test_cross_validation_is_a_plain_loop_over_folds(chance: np.random.Generator) -> None:
    prompts, candidates, folds = 23, 4, 5
    sizes = chance.integers(1, 4, prompts).astype(float)
    sums = np.floor(chance.random((prompts, candidates)) * (sizes[:, None] + 1))
    parting, rates = np.random.default_rng(7), []
    for _ in range(20):
        fold = parting.permutation(np.arange(prompts) % folds)
        won = 0.0
        for part in range(folds):
            train, test = fold != part, fold == part
            winner = (sums[train].sum(axis=0) / sizes[train].sum()).argmax()
            won += sums[test, winner].sum()
        rates.append(won / sizes.sum())
    assert cross_validated(sums, sizes, folds, seed=7) == pytest.approx(np.mean(rates))


def test_the_best_of_many_coins_is_expected_to_fall_to_a_coin(
    chance: np.random.Generator,
) -> None:
    names = [(f"s{n}", f"w{n}") for n in range(30)]
    studies = [
        choose(names, (chance.random((30, 200)) < 0.5).astype(float), own_prompts(200, 100), 10, 0)
        for _ in range(40)
    ]
    assert np.mean([found.accuracy.value for found in studies]) > 0.56
    # each is off by 0.035, one standard deviation of a coin that is thrown 200 times
    assert np.mean([found.expected for found in studies]) == pytest.approx(0.5, abs=0.02)
    for found in studies:
        assert found.expected is not None
        assert found.fall == found.accuracy.value - found.expected
        assert found.candidates == 30 and len(found.rivals) == 5
    assert np.mean([found.share for found in studies]) < 0.5


def test_a_pair_that_is_better_by_far_is_certain_and_does_not_fall(
    chance: np.random.Generator,
) -> None:
    values = (chance.random((10, 300)) < 0.5).astype(float)
    values[6] = chance.random(300) < 0.9
    names = [(f"s{n}", f"w{n}") for n in range(10)]
    found = choose(names, values, own_prompts(300), folds=10, seed=0)
    assert (found.strong, found.weak, found.share) == ("s6", "w6", 1.0)
    assert found.fall == pytest.approx(0, abs=1e-12)
    assert found.rivals == (("s6", "w6", 1.0),)


def test_pairs_that_are_best_together_share_a_resample() -> None:
    resampled = np.array([[0.5, 0.7, 0.7], [0.9, 0.1, 0.1]])
    assert best_shares(resampled).tolist() == [0.5, 0.25, 0.25]
