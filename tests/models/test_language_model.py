"""One model as a unit: rows in, log-probs out."""

from __future__ import annotations

import math

import pytest
import torch
import transformers
from helpers import tiny
from helpers.oracle import token_logprobs

from drsow_plugin import ConfigError, DrSoW, FakeEngine, LanguageModel
from drsow_plugin.models.row import ModelRow
from drsow_plugin.records import TokenPair

PROMPTS = ["What is the capital of France?", [{"role": "user", "content": "Add two numbers."}]]
RESPONSES = ["It is Paris.", "    return a + b"]


def test_log_probs_are_those_of_plain_transformers_in_float64(strong: str) -> None:
    model = LanguageModel(strong)
    oracle = transformers.AutoModelForCausalLM.from_pretrained(strong, dtype=torch.float64)
    rows = [ModelRow.read(p, r, "row") for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    for logprob, pair in zip(model.logprobs(PROMPTS, RESPONSES), model.tokenize(rows), strict=True):
        assert isinstance(pair, TokenPair)
        expected = token_logprobs(oracle, pair.prompt_ids, pair.response_ids)
        assert logprob.token_logprobs == pytest.approx(expected, abs=1e-5)
        assert logprob.total == pytest.approx(sum(expected), abs=1e-5)
        assert logprob.num_tokens == len(pair.response_ids)


def test_models_that_end_turns_by_another_token_each_read_their_own(strong: str, weak: str) -> None:
    first, second = (tiny.tokenizer("gpt2_bos", "mistral") for _ in "sw")  # asks for eos_token
    second.eos_token = "<|im_end|>"
    drsow = DrSoW(strong, weak, strong_tokenizer=first, weak_tokenizer=second)
    alone = LanguageModel(strong, tokenizer=first), LanguageModel(weak, tokenizer=second)
    rewards = drsow.score(PROMPTS, RESPONSES)
    totals = [model.logprobs(PROMPTS, RESPONSES) for model in alone]
    for strong_one, weak_one, reward in zip(*totals, rewards, strict=True):
        assert reward.reward == strong_one.total - weak_one.total


def test_what_a_template_is_told_of_the_tokenizer_is_in_the_fingerprint(strong: str) -> None:
    found = set()
    for token in ("</s>", "<|im_end|>", "</s>"):
        tokenizer = tiny.tokenizer("gpt2_bos", "mistral")
        tokenizer.eos_token = token  # behind earlier turns too
        model = LanguageModel(strong, tokenizer=tokenizer, end_of_turn=False)
        found.add(model.identity.fingerprint())
    assert len(found) == 2


def test_a_reward_is_two_models_subtracted_to_the_last_bit(strong: str, weak: str) -> None:
    alone = [LanguageModel(source).logprobs(PROMPTS, RESPONSES) for source in (strong, weak)]
    rewards = DrSoW(strong, weak).score(PROMPTS, RESPONSES)
    for strong_one, weak_one, reward in zip(*alone, rewards, strict=True):
        assert reward.reward == strong_one.total - weak_one.total


@pytest.mark.fault(
    "rows",
    "a row that cannot be scored, among others",
    "its reason in place of a number; the others have theirs",
)
def test_a_row_that_cannot_be_scored_says_why_and_takes_no_other_with_it(strong: str) -> None:
    model = LanguageModel(strong, max_length=60, overflow="skip")
    prompts = ["short", "long " * 99, [{"content": "no role"}], "short", "short"]
    seen: list[int] = []
    found = model.logprobs(prompts, ["a", "a", "a", 7, ""], seen.append)  # type: ignore[list-item]
    kinds = [logprob.problem and logprob.problem.kind for logprob in found]
    assert kinds == [None, "too long", "bad row", "bad row", None]
    assert all(math.isnan(logprob.total) == (logprob.problem is not None) for logprob in found)
    assert len(seen) == 2


def test_options_are_those_of_a_model_and_others_are_refused(strong: str) -> None:
    model = LanguageModel(strong, template="none", dtype="bfloat16", end_of_turn=False)
    assert model.identity.dtype == "bfloat16" and model.identity.template is None
    assert repr(model).startswith("LanguageModel(source=") and "dtype='bfloat16'" in repr(model)
    with pytest.raises(ConfigError, match="Unknown option 'reduction'"):
        LanguageModel(strong, reduction="mean")  # type: ignore[call-arg]


def test_one_identity_tells_what_is_the_same(strong: str, weak: str) -> None:
    one, same = LanguageModel(strong), LanguageModel(strong, dtype="float32", device="cpu")
    plain, other = LanguageModel(strong, template="none"), LanguageModel(weak)
    assert one.identity.is_same_as(same.identity)
    assert one.identity.fingerprint() == same.identity.fingerprint()
    for different in (plain, other):
        assert not one.identity.is_same_as(different.identity)
        assert one.identity.fingerprint() != different.identity.fingerprint()
    assert one.identity.tokenizes_like(other.identity)
    assert not one.identity.tokenizes_like(plain.identity)
    assert one.identity.weights == plain.identity.weights != other.identity.weights


def test_an_engine_is_a_model_too(strong: str) -> None:
    model = LanguageModel(FakeEngine(100), tokenizer=strong)
    for logprob in model.logprobs(PROMPTS, RESPONSES):
        assert logprob.total == pytest.approx(-logprob.num_tokens * math.log(100))
    assert model.is_loaded and model.device == "<FakeEngine: uniform over 100 tokens in memory>"
