"""The reward: closed forms, invariances, policies, and input that must be refused."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from helpers import tiny
from helpers.engines import network_of
from helpers.oracle import token_logprobs

from drsow_plugin import ConfigError, DataError, DrSoW
from drsow_plugin.errors import NonFiniteError, OverflowLengthError
from drsow_plugin.models.row import ModelRow
from drsow_plugin.records import LogProb
from drsow_plugin.scoring.reward import reward

PROMPTS: list[Any] = [
    "What is the capital of France?",
    [
        {"role": "system", "content": "Write a short answer."},
        {"role": "user", "content": "The quick brown fox?"},
        {"role": "assistant", "content": "It is quick."},
        {"role": "user", "content": "And the dog?"},
    ],
    "",
    "What is the capital of France?",
    "def add(a, b):",
    "Say nothing.",
]
RESPONSES = ["It is Paris.", "lazy " * 40, "naïve 你好", "", "    return a + b\n", " \n "]


def test_the_definition() -> None:
    strong, weak = LogProb(-3.0, 4), LogProb(-10.0, 5)
    assert reward(strong, weak) == 7.0
    assert reward(strong, weak, "mean") == -3.0 / 4 + 10.0 / 5


def test_rewards_agree_with_a_float64_loop(strong: str, weak: str) -> None:
    drsow = DrSoW(strong, weak)
    rewards = drsow.score(PROMPTS, RESPONSES)
    for side, folder in (("strong", strong), ("weak", weak)):
        oracle = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        for row, scored in enumerate(rewards):
            messages = PROMPTS[row]
            if isinstance(messages, str):
                messages = [{"role": "user", "content": messages}]
            tokenizer = tf.AutoTokenizer.from_pretrained(folder)
            prompt = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
            response_ids = tokenizer.encode(f"{RESPONSES[row]}<|im_end|>", add_special_tokens=False)
            expected = token_logprobs(oracle, prompt_ids, response_ids)
            assert getattr(scored, f"{side}_tokens") == len(response_ids)
            assert getattr(scored, f"{side}_logprob") == pytest.approx(sum(expected), abs=1e-5)
    for scored in rewards:
        assert scored.strong_logprob is not None and scored.weak_logprob is not None
        assert scored.reward == scored.strong_logprob - scored.weak_logprob


def test_a_uniform_model_gives_minus_n_ln_v(tmp_path: Path, strong: str) -> None:
    shutil.copytree(strong, tmp_path / "uniform")
    model = tf.AutoModelForCausalLM.from_pretrained(strong)
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    model.save_pretrained(tmp_path / "uniform")
    for scored in DrSoW(strong, str(tmp_path / "uniform")).score(PROMPTS, RESPONSES):
        expected = -scored.weak_tokens * math.log(512)
        assert scored.weak_logprob == pytest.approx(expected, abs=1e-9, rel=1e-12)


def test_the_same_weights_twice_give_exactly_zero(tmp_path: Path, strong: str) -> None:
    shutil.copytree(strong, tmp_path / "copy")
    for scored in DrSoW(strong, str(tmp_path / "copy")).score(PROMPTS, RESPONSES):
        assert scored.reward == 0.0


def test_swapping_the_models_flips_the_sign(strong: str, weak: str) -> None:
    there = DrSoW(strong, weak).score(PROMPTS, RESPONSES)
    back = DrSoW(weak, strong).score(PROMPTS, RESPONSES)
    assert [r.reward for r in there] == [-r.reward for r in back if r.reward is not None]


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_tokens": 70}, {"batch_size": 2}])
def test_rewards_do_not_depend_on_batches(strong: str, weak: str, options: dict[str, int]) -> None:
    usual = DrSoW(strong, weak).score(PROMPTS, RESPONSES)
    other = DrSoW(strong, weak, **options).score(PROMPTS, RESPONSES)
    for a, b in zip(usual, other, strict=True):
        assert a.reward == pytest.approx(b.reward, abs=1e-5)


def test_rewards_do_not_depend_on_order_or_neighbours(strong: str, weak: str) -> None:
    drsow = DrSoW(strong, weak)
    usual = drsow.score(PROMPTS, RESPONSES)
    backwards = drsow.score(PROMPTS[::-1], RESPONSES[::-1])[::-1]
    alone = [drsow.score([p], [r])[0] for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    for a, b, c in zip(usual, backwards, alone, strict=True):
        assert a.reward == pytest.approx(b.reward, abs=1e-5)
        assert a.reward == pytest.approx(c.reward, abs=1e-5)


def test_equal_rows_get_equal_rewards_to_the_last_bit(strong: str, weak: str) -> None:
    prompts = ["A question?"] * 3 + ["Another, longer question?"] + ["A question?"] * 4
    rewards = DrSoW(strong, weak, batch_tokens=90).score(prompts, ["It is Paris."] * 8)
    assert len({r.reward for i, r in enumerate(rewards) if i != 3}) == 1


def test_a_plain_lm_of_the_same_weights_is_another_side(strong: str) -> None:
    drsow = DrSoW(strong, strong, weak_template="none")
    scored = drsow.score(["What is the capital of France?"], ["It is Paris."])[0]
    assert scored.reward != 0
    assert scored.strong_tokens == scored.weak_tokens + 1  # the end of turn
    assert network_of(drsow, "strong") is network_of(drsow, "weak")


def test_mean_divides_each_side_by_its_own_tokens(strong: str) -> None:
    drsow = DrSoW(strong, strong, weak_template="none", reduction="mean")
    scored = drsow.score(["A question?", "A question?"], ["It is Paris.", ""])
    first = scored[0]
    assert first.strong_logprob is not None and first.weak_logprob is not None
    assert first.reward == (
        first.strong_logprob / first.strong_tokens - first.weak_logprob / first.weak_tokens
    )
    assert scored[1].reward is None and "no tokens" in str(scored[1].reason)


def test_an_empty_response_without_an_end_of_turn_has_log_prob_zero(strong: str, weak: str) -> None:
    scored = DrSoW(strong, weak, end_of_turn=False).score(["A question?"], [""])[0]
    assert (scored.reward, scored.strong_logprob, scored.strong_tokens) == (0.0, 0.0, 0)


def test_policies_are_recorded_with_every_result(strong: str, weak: str) -> None:
    drsow = DrSoW(strong, weak, reduction="mean", end_of_turn="false", max_length="100")
    scored = drsow.score(["A question?"], ["Yes."])[0]
    assert dataclasses.asdict(scored.scoring) == {
        "reduction": "mean",
        "end_of_turn": False,
        "overflow": "error",
        "max_length": 100,
        "refine": 0.0,
        "control_tokens": "text",
    }


LONG = "The quick brown fox jumps over the lazy dog. " * 20


def test_overflow_error_names_the_row_before_weights_are_loaded(strong: str, weak: str) -> None:
    drsow = DrSoW(strong, weak, max_length=60)
    with pytest.raises(OverflowLengthError, match=r"row 1, strong model: \d+ prompt \+ \d+"):
        drsow.score(["short", LONG], ["yes", "yes"])
    assert not drsow.models["strong"].is_loaded


def test_overflow_skip_gives_a_null_reward_and_a_reason(strong: str, weak: str) -> None:
    short = DrSoW(strong, weak).score(["short"], ["yes"])
    both = DrSoW(strong, weak, max_length=60, overflow="skip").score(
        ["short", LONG], ["yes", "yes"]
    )
    assert both[0].reward == pytest.approx(short[0].reward, abs=1e-5)
    assert both[1].reward is None and both[1].strong_logprob is None
    assert "more than max_length 60" in str(both[1].reason)


def test_overflow_truncate_prompt_cuts_the_prompt_from_the_left(strong: str, weak: str) -> None:
    drsow = DrSoW(strong, weak, max_length=60, overflow="truncate_prompt")
    cut, hopeless = drsow.score([LONG, "short"], ["yes", LONG])
    tokenizer = tf.AutoTokenizer.from_pretrained(strong)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": LONG}], tokenize=False, add_generation_prompt=True
    )
    prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
    response_ids = tokenizer.encode("yes<|im_end|>", add_special_tokens=False)
    kept = prompt_ids[-(60 - len(response_ids)) :]
    oracle = tf.AutoModelForCausalLM.from_pretrained(strong, dtype=torch.float64)
    expected = sum(token_logprobs(oracle, kept, response_ids))
    assert cut.strong_logprob == pytest.approx(expected, abs=1e-5)
    assert cut.strong_truncated == len(prompt_ids) - len(kept)
    assert hopeless.reward is None and "even without the prompt" in str(hopeless.reason)


def test_truncation_keeps_a_leading_bos(tmp_path: Path) -> None:
    folders = [tiny.save(tmp_path / str(seed), seed=seed, template="llama3") for seed in (1, 2)]
    drsow = DrSoW(*folders, max_length=60, overflow="truncate_prompt")
    row = ModelRow([{"role": "user", "content": LONG}], "yes", "row 0")
    pair = drsow.models["strong"].tokenize([row])[0]
    (whole,) = drsow.models["strong"].renderer.encode_all([(row.messages, "yes", "")])
    assert len(pair) == 60 and pair.truncated == len(whole) - 60
    assert pair.prompt_ids[0] == whole.prompt_ids[0] == tiny.tokenizer("gpt2_bos").bos_token_id
    assert pair.prompt_ids[1:] == whole.prompt_ids[-len(pair.prompt_ids) + 1 :]


def test_what_was_unusual_is_in_the_result(tmp_path: Path, weak: str) -> None:
    gemma = tiny.save(tmp_path / "gemma", seed=1, template="gemma")
    scored = DrSoW(gemma, weak).score([PROMPTS[1]], ["It is."])[0]
    assert any(note.startswith("strong: the template has no system role") for note in scored.notes)


def test_a_nan_names_the_row_and_the_model(tmp_path: Path, strong: str, weak: str) -> None:
    shutil.copytree(weak, tmp_path / "broken")
    model = tf.AutoModelForCausalLM.from_pretrained(weak)
    tokenizer = tf.AutoTokenizer.from_pretrained(weak)
    token = tokenizer.encode("你", add_special_tokens=False)[0]
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = math.nan
    model.save_pretrained(tmp_path / "broken")
    drsow = DrSoW(strong, str(tmp_path / "broken"))
    assert drsow.score(["fine"], ["fine"])[0].reward is not None
    with pytest.raises(NonFiniteError, match="row 2: under the weak model the log-prob came out"):
        drsow.score(["fine", "fine too", "你"], ["a", "b", "c"])


def test_lengths_that_differ_are_refused(strong: str, weak: str) -> None:
    with pytest.raises(DataError, match="2 prompts, 1 responses"):
        DrSoW(strong, weak).score(["a", "b"], ["c"])


@pytest.mark.parametrize(
    ("prompt", "response", "message"),
    [
        (3, "x", "row 0: a prompt is a string or a list of messages, got int"),
        ([{"content": "x"}], "x", "row 0, message 0: a message is"),
        ([{"role": "user", "content": 3}], "x", "content of a message is a string, got int"),
        ("cut \ud83d", "x", "row 0, prompt: not valid Unicode at character 4"),
        ("x", "cut \ud83d", "row 0, response: not valid Unicode at character 4"),
        ("x", None, "row 0: a response is a string, got NoneType"),
    ],
)
def test_rows_that_are_not_text_are_refused(
    strong: str, weak: str, prompt: Any, response: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        DrSoW(strong, weak).score([prompt], [response])


def test_a_single_string_is_not_taken_for_a_list(strong: str, weak: str) -> None:
    for prompts in ("prompt", {"a": 1}, {"a"}, None, iter(["a"])):
        with pytest.raises(DataError, match="prompts is a list"):
            DrSoW(strong, weak).score(prompts, ["response"])  # type: ignore[arg-type]


def test_no_rows_give_no_rewards(strong: str, weak: str) -> None:
    assert DrSoW(strong, weak).score([], []) == []


def test_the_description_records_the_pair_and_survives_json(strong: str, weak: str) -> None:
    described = json.loads(json.dumps(DrSoW(strong, weak, weak_template="none").describe()))
    assert (
        described["strong"]["sha256"]["model.safetensors"]
        != (described["weak"]["sha256"]["model.safetensors"])
    )
    assert described["strong"]["dtype"] == "float32"
    exact = {"tf32": False, "reduced_precision_reduction": False}
    assert described["strong"]["arithmetic"] == described["weak"]["arithmetic"] == exact
    assert len(described["strong"]["template_sha256"]) == 64
    assert described["weak"]["template_sha256"] is None
    assert described["versions"]["torch"] == torch.__version__


def test_the_fingerprint_changes_with_whatever_changes_a_reward(
    tmp_path: Path, strong: str, weak: str
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(tiny.LLAMA3, encoding="utf-8")
    variants: list[dict[str, Any]] = [
        {},
        {"reduction": "mean"},
        {"end_of_turn": False},
        {"max_length": 100},
        {"overflow": "skip"},
        {"weak_template": "none"},
        {"strong_template": str(template)},
        {"weak_dtype": "bfloat16"},
    ]
    prints = [DrSoW(strong, weak, **options).fingerprint for options in variants]
    prints.append(DrSoW(weak, strong).fingerprint)
    assert len(set(prints)) == len(prints)
    assert DrSoW(strong, weak, batch_size=1).fingerprint == prints[0]


def test_the_same_model_under_two_spellings_is_refused(
    strong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(strong).parent)
    for weak, options in (
        (f"{strong}/", {}),
        (Path(strong).name, {}),
        (strong, {"weak_tokenizer": strong}),
        (strong, {"weak_trust_remote_code": True}),
        (strong, {"weak_dtype": "float32"}),
        (strong, {"weak_device_map": "cpu", "weak_dtype": "float32"}),
    ):
        with pytest.raises(ConfigError, match="the same model"):
            DrSoW(strong, weak, device="cpu", **options)


def test_nothing_is_scored_before_both_sides_are_loaded(
    tmp_path: Path, strong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    monkeypatch.setattr("drsow_plugin.engines.local.engine.LocalEngine.logprobs", None)
    with pytest.raises(ConfigError, match=r"weak=.* could not be loaded"):
        DrSoW(strong, str(tmp_path)).score(["Q?"], ["A."])


def test_a_tokenizer_without_a_fast_backend(tmp_path: Path, strong: str) -> None:
    config = tf.LlamaConfig(**{**tiny._SIZES, "vocab_size": 512})
    tf.LlamaForCausalLM(config).save_pretrained(tmp_path)
    tf.ByT5Tokenizer().save_pretrained(tmp_path)
    drsow = DrSoW(strong, str(tmp_path), weak_template="none")
    assert drsow.score(["naïve?"], ["Yes."])[0].weak_tokens == 4
    assert len(drsow.fingerprint) == 64


def test_a_token_outside_the_models_vocabulary_is_named(tmp_path: Path, strong: str) -> None:
    config = tf.LlamaConfig(**{**tiny._SIZES, "vocab_size": 300})
    tf.LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="outside the weak model's vocabulary of 300"):
        DrSoW(strong, str(tmp_path), weak_tokenizer=strong).score(["Q?"], ["A."])
