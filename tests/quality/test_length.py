"""Reward and length against scipy, a regression with an intercept each, and by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from helpers.labelled import arrays_of
from scipy import stats

from drsow_plugin.quality.length import (
    _Ranks,
    _weighted,
    controlled_margins,
    correlations,
    fit_slope,
    length_effect,
)
from drsow_plugin.quality.rows import Pairs, Responses, Rows


@pytest.fixture
def chance() -> np.random.Generator:
    return np.random.default_rng(3)


def responses_of(reward: np.ndarray, tokens: np.ndarray, prompts: np.ndarray) -> Responses:
    zeros = np.zeros(len(reward))
    return Responses(zeros, zeros, prompts, reward, reward, zeros, tokens, tokens)


def rows_of(pairs: Pairs, responses: Responses) -> Rows:
    return Rows(len(pairs), len(pairs), responses, pairs, [""], Counter(), np.arange(len(pairs)))


def test_the_slope_is_that_of_a_regression_with_an_intercept_for_each_prompt(
    chance: np.random.Generator,
) -> None:
    prompts = np.repeat(np.arange(12), chance.integers(1, 5, 12))
    tokens = chance.integers(1, 300, len(prompts))
    reward = 0.04 * tokens + 30 * prompts + chance.normal(0, 3, len(prompts))
    design = np.column_stack([tokens, prompts[:, None] == np.arange(12)])
    expected = np.linalg.lstsq(design, reward, rcond=None)[0][0]
    assert fit_slope(responses_of(reward, tokens, prompts)) == pytest.approx(expected)
    assert fit_slope(responses_of(reward, np.full(len(reward), 9), prompts)) is None
    assert fit_slope(responses_of(reward[:3], tokens[:3], np.arange(3))) is None


@pytest.mark.slow
def test_correlations_and_their_intervals_are_those_of_scipy(chance: np.random.Generator) -> None:
    x = chance.integers(0, 30, 150).astype(float)  # with ties
    y = np.exp(x / 10) + chance.normal(0, 8, 150)
    pearson, spearman = correlations(x, y, np.arange(150), resamples=1500)
    for found, plain in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        expected = stats.bootstrap(
            (x, y),
            lambda a, b, plain=plain: plain(a, b).statistic,
            paired=True,
            vectorized=False,
            method="percentile",
            n_resamples=1500,
            rng=1,
        ).confidence_interval
        assert found is not None and found.value == pytest.approx(plain(x, y).statistic)
        assert (found.low, found.high) == (
            pytest.approx(expected.low, abs=0.02),
            pytest.approx(expected.high, abs=0.02),
        )


def test_a_resample_ranks_anew(chance: np.random.Generator) -> None:
    x = chance.integers(0, 6, 40).astype(float)
    often = chance.integers(0, 4, 40)
    expected = dict(zip(np.repeat(x, often), stats.rankdata(np.repeat(x, often)), strict=True))
    assert _Ranks(x).of(often)[often > 0].tolist() == [expected[v] for v in x[often > 0]]
    y = chance.normal(size=40)
    plain = stats.pearsonr(np.repeat(x, often), np.repeat(y, often)).statistic
    assert _weighted(x, y, often) == pytest.approx(plain)
    assert np.isnan(_weighted(np.full(40, 0.1), y, often))


def test_within_and_across_prompts_may_differ_in_sign() -> None:
    prompts = np.repeat(np.arange(50), 2)
    tokens = np.tile([10, 20], 50) + 100 * prompts
    reward = np.tile([0.0, 1.0], 50) - 5.0 * prompts
    effect = length_effect(
        rows_of(arrays_of([], [])[0], responses_of(reward, tokens, prompts)), resamples=100
    )
    assert effect.within_pearson and effect.within_pearson.value == pytest.approx(1)
    assert effect.across_pearson and effect.across_pearson.value == pytest.approx(-1)
    assert effect.within_spearman and effect.within_spearman.low == pytest.approx(1)
    assert effect.across_spearman and effect.across_spearman.value == pytest.approx(-1)
    assert effect.slope and (effect.slope.value, effect.slope.n) == (pytest.approx(0.1), 100)
    assert effect.accuracy is effect.controlled is effect.picks_longer is None


def test_a_reward_that_is_nothing_but_length_is_a_coin_when_controlled(
    chance: np.random.Generator,
) -> None:
    lengths = chance.integers(-50, 80, 4000)
    pairs, responses = arrays_of(0.5 * lengths + chance.normal(0, 0.1, 4000), lengths)
    effect = length_effect(rows_of(pairs, responses), resamples=200)
    assert effect.accuracy and effect.longer and effect.controlled and effect.picks_longer
    assert effect.accuracy.value == pytest.approx(effect.longer.value, abs=0.01)
    assert effect.accuracy.value > 0.58 and effect.picks_longer.value > 0.99
    assert effect.controlled.low and effect.controlled.high
    assert effect.controlled.low < 0.5 < effect.controlled.high


def test_the_slope_for_a_pair_is_from_other_prompts(chance: np.random.Generator) -> None:
    lengths = chance.integers(1, 40, 12)
    pairs, responses = arrays_of(chance.normal(0, 9, 12), lengths, np.arange(12) // 2)
    found = controlled_margins(pairs, responses, folds=3, seed=7)
    parts = np.random.default_rng(7).permutation(6) % 3
    assert found is not None
    for at, prompt in enumerate(np.arange(12) // 2):
        others = parts[responses.prompt] != parts[prompt]
        slope = fit_slope(responses.where(others))
        assert slope is not None
        assert found[at] == pytest.approx(pairs.margin[at] - slope * lengths[at])


def test_two_responses_of_one_length_have_no_slope() -> None:
    pairs, responses = arrays_of([1.0, 2.0, 3.0], [0, 0, 0])
    effect = length_effect(rows_of(pairs, responses), resamples=100)
    assert effect.slope is effect.controlled is effect.within_pearson is effect.picks_longer is None
    assert effect.accuracy is not None and effect.accuracy.value == 1.0
