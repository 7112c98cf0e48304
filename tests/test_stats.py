"""Running statistics, against numpy and closed forms."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest
from scipy import stats

from drsow_plugin.stats import (
    Correlation,
    Proportion,
    Share,
    pearson,
    quantiles,
    spearman,
    standard_error,
)


def test_a_share_is_the_mean_with_its_standard_error() -> None:
    values = [1.0, 0.0, 0.5, 1.0, 1.0]
    share = Share()
    for row, value in enumerate(values):
        share.add(value, row, tie=value == 0.5)
    found = share.proportion()
    assert found is not None and (found.n, found.ties) == (5, 1)
    assert found.value == pytest.approx(np.mean(values))
    assert found.stderr == pytest.approx(np.std(values, ddof=1) / math.sqrt(5))


def test_shares_that_are_added_have_the_interval_of_all_rows() -> None:
    whole, halves = Share(), (Share(), Share())
    for row in range(40):
        for share in (whole, halves[row % 2]):
            share.add(float(row % 3 == 0), row // 4)
    halves[0].update(halves[1])
    found, together = whole.proportion(), halves[0].proportion()
    assert found is not None and found == together
    assert found.low is not None and found.high is not None and found.low < 14 / 40 < found.high


def test_a_tie_that_is_left_out_is_only_counted() -> None:
    share = Share()
    share.leave_out_tie()
    assert share.proportion() is None
    share.add(1.0, 7)
    assert share.proportion() == Proportion(value=1.0, stderr=None, n=1, ties=1)


def test_the_error_of_a_mean_needs_two_values() -> None:
    assert standard_error(0.25, 1) is standard_error(0.0, 0) is None
    assert standard_error(0.25, 26) == 0.1


@pytest.mark.parametrize("centred", [False, True])
def test_a_running_correlation_is_that_of_all_values(centred: bool) -> None:
    source = np.random.default_rng(0)
    groups = source.normal(size=(50, 2, 3)) + source.normal(scale=5, size=(50, 2, 1))
    running = Correlation()
    for xs, ys in groups:
        running.add(xs, ys, centred=centred)
    if centred:
        groups = groups - groups.mean(axis=2, keepdims=True)
    xs, ys = groups.transpose(1, 0, 2).reshape(2, -1)
    assert running.value() == pytest.approx(np.corrcoef(xs, ys)[0, 1])


def test_what_does_not_vary_has_no_correlation() -> None:
    running = Correlation()
    assert running.value() is None
    running.add([0.1] * 3, [1.0, 2.0, 3.0], centred=False)
    assert running.value() is None


def test_quantiles_are_those_of_numpy() -> None:
    values = array("d", [4.0, -4.0, 0.0, 2.0])
    assert quantiles(values, (0.05, 0.5)) == {"0.05": np.quantile(values, 0.05), "0.5": 1.0}
    assert quantiles(array("d"), (0.5,)) is None


def test_correlations_are_those_of_scipy() -> None:
    chance = np.random.default_rng(0)
    x = chance.integers(0, 8, 40).astype(float)  # with ties
    y = x + chance.normal(0, 3, 40)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert pearson(x, np.ones(40)) is None
    assert spearman(x[:2], y[:2]) is None
