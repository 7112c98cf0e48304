"""Sum and mean of log-probs, by hand and against scipy."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
from helpers.labelled import pair, side
from scipy import stats

from drsow_plugin.quality.agreement import agreement, reductions
from drsow_plugin.quality.labelled import LabelledData
from drsow_plugin.quality.rows import Rows, read_labelled
from drsow_plugin.records import LogProb
from drsow_plugin.scoring.reward import reward


def rows_of(data: list[dict[str, object]]) -> Rows:
    return read_labelled(LabelledData.of(datasets.Dataset.from_list(data)))


def test_both_rewards_are_those_of_the_formula() -> None:
    rows = rows_of([pair((3.0, 4), (-1.5, 9)), pair((0.25, 1), (7.0, 30))])
    found = np.stack(reductions(rows.responses))
    responses = rows.responses
    for at in range(4):
        sides = (
            LogProb(float(responses.strong_logprob[at]), int(responses.strong_tokens[at])),
            LogProb(float(responses.weak_logprob[at]), int(responses.weak_tokens[at])),
        )
        assert found[0, at] == reward(*sides, "sum")
        assert found[1, at] == pytest.approx(reward(*sides, "mean"))


def test_a_long_response_wins_by_its_sum_and_loses_by_its_mean() -> None:
    # 4 nats over 40 tokens against 2 nats over 2 tokens, twice; and once both prefer the same
    data = [pair((4.0, 40), (2.0, 2))] * 2 + [pair((5.0, 2), (1.0, 2))]
    found = agreement(rows_of([{**row, "prompt": str(n)} for n, row in enumerate(data)]))
    assert found.same and found.same.value == pytest.approx(1 / 3)
    assert found.sum_accuracy and found.sum_accuracy.value == 1.0
    assert found.mean_accuracy and found.mean_accuracy.value == pytest.approx(1 / 3)
    tie = agreement(rows_of([pair((4.0, 4), (2.0, 2))]))  # by the mean
    assert tie.same and tie.same.value == 0.5


def test_single_responses_have_a_rank_correlation_alone() -> None:
    chance = np.random.default_rng(2)
    numbers = [
        (float(r), int(n)) for r, n in zip(chance.normal(0, 9, 30), range(1, 31), strict=True)
    ]
    own = [{f"drsow_{name}": v for name, v in side(*both).items()} for both in numbers]
    data = [
        {"prompt": f"q {n}", "response": "a", "drsow_status": "ok", **row}
        for n, row in enumerate(own)
    ]
    data[3] |= {"drsow_strong_tokens": 0, "drsow_weak_tokens": 0}
    rows = rows_of(data)
    found = agreement(rows)
    total, mean = (np.delete(values, 3) for values in reductions(rows.responses))
    assert found.spearman
    assert found.spearman.value == pytest.approx(stats.spearmanr(total, mean).statistic)
    assert found.same is found.sum_accuracy is found.mean_accuracy is None
    assert found.without_tokens == 1
