"""Intervals against scipy, plain loops and numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.resampling import own_prompts
from scipy import stats

from drsow_plugin.bootstrap import (
    Estimate,
    PromptBootstrap,
    resampled_sums,
    share_interval,
    sums_by_prompt,
    wins,
)


@pytest.fixture
def chance() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_tie_counts_half() -> None:
    assert wins(np.array([2.0, -1e-9, 0.0])).tolist() == [1.0, 0.0, 0.5]


def test_an_interval_is_that_of_scipy_where_each_row_has_its_own_prompt(
    chance: np.random.Generator,
) -> None:
    values = (chance.random(200) < 0.7).astype(float)
    (found,) = own_prompts(200, 5000).means(values[None])
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=1)
    assert (found.value, found.n) == (values.mean(), 200)
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.011)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.011)


def test_rows_of_one_prompt_are_drawn_together(chance: np.random.Generator) -> None:
    values = chance.random((1, 50))
    (alone,) = own_prompts(50).means(values)
    prompts = [str(row // 3) for row in range(150)]
    (thrice,) = PromptBootstrap(prompts, 2000, 0).means(np.repeat(values, 3, axis=1))
    assert (thrice.low, thrice.high) == pytest.approx((alone.low, alone.high))
    assert (alone.n, thrice.n) == (50, 150)


def test_ratios_are_those_of_a_plain_loop(chance: np.random.Generator) -> None:
    prompts = ["a", "b", "a", "c", "b"]
    values, sizes = chance.random((2, 5)), chance.random(5)
    rows = np.array([True, True, False, True, True])
    bootstrap = PromptBootstrap(prompts, 100, 3)
    found = bootstrap.ratios(values, sizes, rows)
    assert found.shape == (100, 2)
    for resample, counts in zip(found, bootstrap.counts, strict=True):
        drawn = [i for i in range(5) for _ in range(int(counts["abc".index(prompts[i])]))]
        drawn = [i for i in drawn if rows[i]]
        for value, of in zip(resample, values, strict=True):
            assert value == pytest.approx(sum(of[drawn]) / sum(sizes[drawn]))


def test_a_resample_without_a_part_has_no_figure_for_it() -> None:
    bootstrap = PromptBootstrap(["a", "b"], 200, 0)
    found = bootstrap.ratios(np.array([[1.0, 0.0]]), rows=np.array([True, False]))
    missing = bootstrap.counts[:, 0] == 0
    assert missing.any() and (np.isnan(found[:, 0]) == missing).all()
    assert bootstrap.means(np.array([[1.0, 0.0]]), np.array([True, False])) == [
        Estimate(1.0, 1.0, 1.0, 1)
    ]


def test_a_weighted_mean_is_the_mean_of_the_means_of_its_parts() -> None:
    values = np.array([[1.0, 0.0, 1.0, 1.0, 0.0, 0.0]])
    parts = [(3.0, np.arange(6) < 2), (1.0, np.arange(6) >= 2)]
    (found,) = own_prompts(6).weighted_means(values, parts)
    assert found.value == (3 * 0.5 + 1 * 0.5) / 4
    values[0, :2] = 1
    assert own_prompts(6).weighted_means(values, parts)[0].value == (3 * 1 + 1 * 0.5) / 4


def test_the_interval_of_a_share_is_that_of_scipy(chance: np.random.Generator) -> None:
    values = chance.choice([0.0, 0.5, 1.0], 300, p=[0.2, 0.1, 0.7])
    found = share_interval(values, np.arange(300), resamples=5000)
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=1)
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.011)


def test_the_interval_of_a_share_draws_prompts_of_any_size(chance: np.random.Generator) -> None:
    sizes = chance.integers(1, 6, 80)
    prompts = np.repeat(np.arange(80), sizes)
    values = np.repeat((chance.random(80) < 0.6).astype(float), sizes)  # all of a prompt alike
    order = chance.permutation(len(values))
    found = share_interval(values[order], prompts[order], resamples=5000)

    def ratio(sums: np.ndarray, of: np.ndarray, axis: int) -> np.ndarray:
        return sums.sum(axis=axis) / of.sum(axis=axis)

    sums = np.bincount(prompts, values)
    expected = stats.bootstrap(
        (sums, sizes), ratio, paired=True, method="percentile", n_resamples=5000, rng=1
    )
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.015)
    apart = share_interval(values, np.arange(len(values)), resamples=5000)
    assert apart and found and apart[1] - apart[0] < 0.75 * (found[1] - found[0])


def test_a_share_without_exception_has_the_interval_of_clopper_and_pearson() -> None:
    # the lower end p of n successes in n draws solves p**n = 0.025
    low, high = share_interval(np.ones(20), np.arange(20)) or (0, 0)
    assert (low, high) == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    twice = share_interval(np.zeros(40), np.arange(40) // 2)
    assert twice == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))


def test_what_says_nothing_has_no_interval() -> None:
    assert share_interval([], []) is None
    assert share_interval([1.0, 0.0], [7, 7]) is None
    assert share_interval([0.5] * 9, range(9)) is None


def test_sums_are_those_of_each_prompt() -> None:
    found = sums_by_prompt([9, 3, 9], [1.0, 2.0, 4.0], [1, 1, 1])
    assert found.tolist() == [[2.0, 1.0], [5.0, 2.0]]


def test_resamples_of_kinds_are_those_of_their_prompts(chance: np.random.Generator) -> None:
    table, counts = np.array([[1.0, 1.0], [0.0, 2.0], [3.0, 4.0]]), np.array([5, 1, 30])
    kinds = resampled_sums(table, 4000, 0, counts)
    one_by_one = resampled_sums(np.repeat(table, counts, axis=0), 4000, 1)
    assert kinds.mean(axis=0) == pytest.approx(table.T @ counts, rel=0.01)
    for at in (0.025, 0.5, 0.975):
        expected = np.quantile(one_by_one, at, axis=0)
        assert np.quantile(kinds, at, axis=0) == pytest.approx(expected, abs=2.1)
