"""The temperature and what it is worth, against scikit-learn and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from drsow_plugin import DataError
from drsow_plugin.quality.calibration import calibrate, fit_temperature, reliability
from drsow_plugin.scoring.reward import probability


@pytest.fixture
def chance() -> np.random.Generator:
    return np.random.default_rng(11)


def labelled_by(temperature: float, number: int, chance: np.random.Generator) -> np.ndarray:
    """Return margins whose labels follow a temperature: flipped as often as it says."""
    sizes = chance.exponential(20, number)
    right = chance.random(number) < probability(sizes, temperature)
    return np.where(right, sizes, -sizes)


@pytest.mark.parametrize("temperature", [0.3, 7.0, 90.0])
def test_the_temperature_is_that_of_a_logistic_regression(
    temperature: float, chance: np.random.Generator
) -> None:
    margins = labelled_by(temperature, 400, chance)
    both = np.concatenate([margins, -margins])[:, None]
    model = LogisticRegression(fit_intercept=False, C=np.inf, tol=1e-10, max_iter=10_000)
    model.fit(both / 20, np.repeat([1, 0], 400))
    assert fit_temperature(margins) == pytest.approx(20 / model.coef_[0, 0], rel=1e-4)


def test_the_temperature_of_three_pairs_by_hand() -> None:
    # two of three right with the same margin m: the best probability is 2/3, so m/T = ln 2
    assert fit_temperature(np.array([5.0, 5.0, -5.0])) == pytest.approx(5 / math.log(2))


def test_margins_that_say_nothing_have_no_finite_temperature() -> None:
    assert fit_temperature(np.array([-3.0, 1.0])) == math.inf
    assert fit_temperature(np.zeros(4)) == math.inf
    assert fit_temperature(np.array([0.5, 0.0, 2.0])) is None
    assert fit_temperature(np.array([1e300, -1e-300])) is None


def test_a_probability_is_the_logistic_function_and_never_overflows() -> None:
    assert probability(3.0, 2.0) == pytest.approx(1 / (1 + math.exp(-1.5)))
    assert probability([-1e6, 0.0, 1e6], 1.0).tolist() == [0.0, 0.5, 1.0]
    assert probability([-5.0, 5.0], math.inf).tolist() == [0.5, 0.5]
    assert probability(-700.0, 1.0) == pytest.approx(math.exp(-700.0))


def test_errors_are_of_pairs_that_the_temperature_was_not_fitted_on(
    chance: np.random.Generator,
) -> None:
    margins = labelled_by(15, 60, chance)
    prompts = np.arange(60) // 2
    found = calibrate(margins, prompts, folds=3, seed=4)
    parts = np.random.default_rng(4).permutation(30) % 3
    each = np.empty(60)
    for part in range(3):
        held_out = parts[prompts] == part
        assert 0 < held_out.sum() < 60
        each[held_out] = fit_temperature(margins[~held_out])
    # to scikit-learn a pair is one observation: class 1 if the response with the higher reward
    # is the better one, with its confidence
    sure, right = probability(np.abs(margins), each), (margins > 0).astype(int)
    assert found.brier == pytest.approx(brier_score_loss(right, sure))
    assert found.log_loss == pytest.approx(log_loss(right, sure))
    assert found.temperature == fit_temperature(margins)
    assert (found.low, found.high) == (each.min(), each.max())
    assert (found.pairs, found.prompts) == (60, 30)


def test_the_expected_calibration_error_by_hand() -> None:
    confidence = np.array([0.5, 0.55, 0.65, 0.95, 1.0, 1.0])
    right = np.array([0.5, 1.0, 0.0, 1.0, 1.0, 0.0])
    bins = reliability(confidence, right, np.arange(6), bins=5)
    assert [part.n for part in bins] == [2, 1, 0, 0, 3]
    assert [part.confidence for part in bins if part.n] == pytest.approx([0.525, 0.65, 2.95 / 3])
    assert [part.accuracy.value for part in bins if part.accuracy] == pytest.approx(
        [0.75, 0, 2 / 3]
    )
    assert bins[0].accuracy is not None and bins[0].accuracy.low == 0.5
    assert (bins[0].low, bins[-1].high) == (0.5, 1.0)


def test_margins_that_follow_a_temperature_are_calibrated_and_others_are_not(
    chance: np.random.Generator,
) -> None:
    margins = labelled_by(12, 20_000, chance)
    found = calibrate(margins, np.arange(20_000), resamples=100)
    assert found.temperature == pytest.approx(12, rel=0.05)
    assert found.ece is not None and found.ece < 0.012
    # a coin whose margins are large is believed too much by any finite temperature
    loud = calibrate(
        np.where(chance.random(4000) < 0.8, 1.0, -30.0), np.arange(4000), resamples=100
    )
    assert loud.temperature == math.inf and loud.ece == pytest.approx(0.3, abs=0.02)
    assert loud.brier == 0.25 and loud.log_loss == pytest.approx(math.log(2))
    assert loud.values()["temperature"] == "inf"


def test_where_every_pair_is_right_there_is_no_temperature() -> None:
    found = calibrate(np.ones(20), np.arange(20))
    assert (found.temperature, found.ece, found.brier, found.bins) == (None, None, None, ())


def test_a_temperature_needs_two_prompts() -> None:
    with pytest.raises(DataError, match=r"there are 1\. Give pairs of at least 2 prompts"):
        calibrate(np.array([1.0, -2.0]), np.array([3, 3]))


def test_a_fold_without_a_temperature_leaves_no_smallest_one() -> None:
    margins = np.where(np.arange(100) == 7, -0.01, 1.0)  # without pair 7 all are right
    found = calibrate(margins, np.arange(100))
    assert found.temperature == pytest.approx(fit_temperature(margins))
    assert (found.low, found.ece) == (None, None) and found.high is not None
