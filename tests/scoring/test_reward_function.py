"""A reward function as TRL calls it: numbers in order, None where there is none, metrics."""

from __future__ import annotations

import inspect
import pickle
from statistics import fmean
from typing import Any

import pytest
from helpers.fakes import fake_pair
from helpers.preferences import USER, turn

from drsow_plugin import DrSoW, EngineError
from drsow_plugin.scoring.reward_function import RewardFunction


def function(**options: Any) -> RewardFunction:
    return DrSoW(**fake_pair(**options)).as_reward_function()


def columns(metrics: dict[str, float]) -> dict[str, Any]:
    """Return what TRL 1.16 passes beside prompts and completions."""
    return {
        "completion_ids": [[1], [2]],
        "solution": ["7", "8"],
        "trainer_state": object(),
        "log_extra": lambda column, values: None,
        "log_metric": metrics.__setitem__,
    }


def test_texts_and_messages_have_the_rewards_of_the_pair() -> None:
    texts = ["It is quick.", "No."]
    expected = [r.reward for r in DrSoW(**fake_pair()).score([[USER]] * 2, texts)]
    assert function()([USER["content"]] * 2, texts, **columns({})) == expected
    assert function()([[USER]] * 2, [turn(text) for text in texts], **columns({})) == expected
    assert function()(prompts=[], completions=[], **columns({})) == []


def test_means_and_the_share_without_a_reward_are_metrics() -> None:
    metrics: dict[str, float] = {}
    reward = DrSoW(**fake_pair()).as_reward_function("dr_sow")
    assert reward.__name__ == "dr_sow"
    got = reward(["a"] * 2, ["b", "c " * 600], **columns(metrics))
    assert got[0] is not None and got[1] is None
    (row,) = DrSoW(**fake_pair()).score(["a"], ["b"])
    assert metrics == {
        "dr_sow/strong_logprob": row.strong_logprob,
        "dr_sow/weak_logprob": row.weak_logprob,
        "dr_sow/strong_tokens": row.strong_tokens,
        "dr_sow/unscored": 0.5,
    }
    reward(["a"], ["c " * 600], **columns(metrics := {}))
    assert metrics == {"dr_sow/unscored": 1.0}
    both = DrSoW(**fake_pair()).score(["a"] * 2, ["b", "x y z"])
    reward(["a"] * 2, ["b", "x y z"], **columns(metrics := {}))
    assert metrics["dr_sow/weak_logprob"] == fmean(r.weak_logprob or 0.0 for r in both)


def test_completions_that_are_no_single_answer_have_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    call = [{"role": "assistant", "content": "x", "tool_calls": [{"function": {}}]}]
    two = [*turn("one"), {"role": "tool", "content": "secret"}]
    completions: list[Any] = [turn("fine"), two, call, 5, None, b"x", []]
    reward = function()
    got = reward([[USER]] * 7, completions)
    assert [value is None for value in got] == [False, *[True] * 6]
    assert got[0] == function()([[USER]], ["fine"])[0]
    told = capsys.readouterr().err
    assert "6 of 7 completions have no reward (bad row: 6)" in told and "secret" not in told
    reward([[USER]], [5])
    assert capsys.readouterr().err == ""  # the same kind again
    assert reward([[{"content": "no role"}]], ["a"]) == [None]


def test_an_engine_that_fails_stops_the_trainer() -> None:
    from drsow_plugin import FakeEngine

    engine = FakeEngine(logprobs=lambda pair: EngineError("it broke"), identity="broken")
    with pytest.raises(EngineError, match="it broke"):
        function(strong=engine)(["a"], ["b"])


def test_trl_takes_it_for_what_it_is() -> None:
    from trl.trainer.utils import get_callable_name, is_async_callable

    assert get_callable_name(function()) == "drsow_reward" and not is_async_callable(function())
    assert "log_metric" in inspect.signature(function()).parameters
    assert pickle.dumps(RewardFunction(len))  # type: ignore[arg-type]
