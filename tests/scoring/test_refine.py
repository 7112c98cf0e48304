"""What is too close to call in bfloat16 is scored again in float32."""

from __future__ import annotations

from itertools import pairwise

import datasets
import pytest

from drsow_plugin import Annotator, ConfigError, DrSoW
from drsow_plugin.engines.fake import FakeEngine
from drsow_plugin.records import Problem, Reward
from drsow_plugin.scoring.reward import REFINED, close_calls
from drsow_plugin.scoring.rows import Row

PROMPTS = ["What is the capital of France?"] * 4 + ["Say it."]
RESPONSES = ["Paris.", "It is Paris.", "    return a + b", "A dog.", "same"]


def test_which_rows_are_close() -> None:
    def row(prompt: str, response: str) -> Row:
        return Row([{"role": "user", "content": prompt}], response)

    rows = [row("a", text) for text in ("1", "2", "3", "4", "1", "5")]
    rows[3] = row("b", "4")
    values = [1.0, 1.5, 9.0, 1.0, 1.0, None]
    rewards = [Reward(value, None, None, 1, 1) for value in values]
    assert close_calls(rows, rewards, 0.4) == []  # the same text twice is no close call
    assert close_calls(rows, rewards, 0.5) == [0, 1, 4]
    assert close_calls(rows, rewards, 8.0) == [0, 1, 2, 4]


def test_close_rewards_are_those_of_float32(strong: str, weak: str) -> None:
    exact = DrSoW(strong, weak, dtype="float32").score(PROMPTS, RESPONSES)
    rough = DrSoW(strong, weak, dtype="bfloat16").score(PROMPTS, RESPONSES)
    assert all(abs(a.reward - b.reward) > 1e-4 for a, b in zip(exact, rough, strict=True))
    gaps = sorted(abs(a.reward - b.reward) for a in rough[:4] for b in rough[:4] if a is not b)
    closest = gaps[0] * 1.01
    refined = DrSoW(strong, weak, dtype="bfloat16", refine=closest).score(PROMPTS, RESPONSES)
    again = [index for index, reward in enumerate(refined) if REFINED in reward.notes]
    assert len(again) == 2 and 4 not in again
    for index, reward in enumerate(refined):
        expected = (exact if index in again else rough)[index]
        assert reward.reward == pytest.approx(expected.reward, abs=1e-5)
        assert reward.strong_logprob == pytest.approx(expected.strong_logprob, abs=1e-5)


def test_a_reward_that_cannot_be_refined_says_so(
    strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rough = DrSoW(strong, weak, dtype="bfloat16").score(PROMPTS, RESPONSES)
    drsow = DrSoW(strong, weak, dtype="bfloat16", refine=1e6)
    monkeypatch.setattr(
        drsow._exact.models["weak"],
        "engine",
        FakeEngine(logprobs=lambda _pair: Problem("out of memory", "too long")),
    )
    refined = drsow.score(PROMPTS, RESPONSES, on_error="null")
    assert [reward.reward for reward in refined] == [reward.reward for reward in rough]
    note = "could not be scored again in float32: out of memory: weak: too long"
    assert [note in reward.notes for reward in refined] == [True] * 4 + [False]


def test_labelling_refines(strong: str, weak: str) -> None:
    pairs = pairwise(RESPONSES[:4])
    rows = [{"prompt": PROMPTS[0], "chosen": a, "rejected": b} for a, b in pairs]
    data = datasets.Dataset.from_list(rows)
    exact = data.map(Annotator(strong, weak, dtype="float32"), batched=True)
    refine = Annotator(strong, weak, dtype="bfloat16", refine=1e6)
    for labelled in (data.map(refine, batched=True), refine.run(data)):
        assert labelled["drsow_margin"] == pytest.approx(list(exact["drsow_margin"]), abs=1e-5)


def test_refining_is_part_of_what_identifies_a_reward(strong: str, weak: str) -> None:
    kinds = [{}, {"refine": 0.5}, {"refine": 2}]
    made = [DrSoW(strong, weak, dtype="bfloat16", **kind) for kind in kinds]
    assert len({drsow.fingerprint for drsow in made}) == 3
    assert made[1].describe()["scoring"]["refine"] == 0.5


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "close", True])
def test_refine_is_a_number_of_nats(strong: str, weak: str, value: object) -> None:
    with pytest.raises(ConfigError, match="refine is a number of nats, at least 0"):
        DrSoW(strong, weak, refine=value)


def test_where_refining_has_no_effect_it_is_refused(strong: str, weak: str) -> None:
    with pytest.raises(ConfigError, match="refine=1 has no effect"):
        DrSoW(strong, weak, refine=1)
    rounded = '{"quant_method": "bitsandbytes", "load_in_8bit": true}'
    with pytest.raises(ConfigError, match="weak_quantization rounds the weights"):
        DrSoW(strong, weak, dtype="bfloat16", weak_quantization=rounded, refine=1)
    half = DrSoW(strong, weak, weak_dtype="bfloat16", refine=1)
    assert half._exact.models["strong"] is half.models["strong"]
