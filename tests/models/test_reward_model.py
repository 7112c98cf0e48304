"""A trained reward model: its numbers are plain transformers', and what is none is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from helpers import rewarding, tiny

from drsow_plugin import ConfigError, DataError, EngineError, RewardModel
from drsow_plugin.errors import OverflowLengthError
from drsow_plugin.models.reward_head import RewardHead
from drsow_plugin.records import Problem

USER = [{"role": "user", "content": "What is the capital of France?"}]
LONG = [
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "How can I help you?"},
    {"role": "user", "content": "Write a short answer to the question. " * 3},
]
ROWS = [
    (USER, "Paris."),
    (USER, "It is a lazy dog, which jumps over the quick brown fox."),
    (LONG, "It is Paris."),
    (USER, ""),
    (LONG, "    return a + b\n"),
]
PROMPTS, RESPONSES = [row[0] for row in ROWS], [row[1] for row in ROWS]


def quiet(_tokens: int, _total: int) -> None:
    """Stand for no progress bar."""


@pytest.mark.parametrize(
    ("arch", "kind", "template", "config"),
    [
        ("llama", "gpt2_bos", "llama3", {}),  # template and tokenizer write a BOS each
        ("llama", "gpt2_bos", "chatml", {}),  # the tokenizer alone
        ("llama", "sentencepiece", "mistral", {"pad_token_id": 2}),
        ("llama", "gpt2_bos", "mistral", {"pad_token_id": "eos"}),  # rows end in padding
        ("qwen3", "gpt2", "chatml", {"pad_token_id": 0}),
        ("modernbert", "bytes", "chatml", {"pad_token_id": 0}),  # attends both ways
    ],
)
def test_rewards_are_those_of_plain_transformers_whatever_shares_a_batch(
    tmp_path: Path, arch: str, kind: str, template: str, config: dict[str, Any]
) -> None:
    if config.get("pad_token_id") == "eos":
        config = {"pad_token_id": tiny.tokenizer(kind).eos_token_id}
    folder = rewarding.save(tmp_path, arch, kind=kind, template=template, **config)
    expected = rewarding.plain(folder, ROWS)
    assert max(expected) - min(expected) > 0.01
    for options in ({}, {"batch_size": 2, "batch_tokens": 64}):
        model = RewardModel(folder, **options)
        got = model.score(PROMPTS, RESPONSES, quiet)
        assert got == pytest.approx(expected, abs=2e-5), options
        assert model._head.pads
    backwards = RewardModel(folder).score(PROMPTS[::-1], RESPONSES[::-1], quiet)
    assert backwards[::-1] == pytest.approx(expected, abs=2e-5)
    exact = RewardModel(folder, dtype="float64").score(PROMPTS, RESPONSES, quiet)
    assert exact == pytest.approx(expected, abs=1e-11)


def test_without_special_tokens_they_are_those_of_the_rendering_alone(tmp_path: Path) -> None:
    folder = rewarding.save(tmp_path, template="chatml")
    model = RewardModel(folder, add_special_tokens=False)
    expected = rewarding.plain(folder, ROWS, card=False)
    assert model.score(PROMPTS, RESPONSES, quiet) == pytest.approx(expected, abs=2e-5)
    assert expected != pytest.approx(rewarding.plain(folder, ROWS), abs=1e-3)
    assert model.fingerprint != RewardModel(folder).fingerprint


def test_a_begun_answer_is_continued_in_its_turn(tmp_path: Path) -> None:
    model = RewardModel(rewarding.save(tmp_path))
    begun = [*USER, {"role": "assistant", "content": "It is "}]
    assert model.score([begun], ["Paris."], quiet) == model.score([USER], ["It is Paris."], quiet)


def test_a_model_that_padding_changes_gets_rows_of_one_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = rewarding.save(tmp_path)

    def forward(self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask)[0]
        return tf.modeling_outputs.SequenceClassifierOutput(logits=self.score(hidden)[:, -1])

    monkeypatch.setattr(tf.LlamaForSequenceClassification, "forward", forward)
    expected = rewarding.plain(folder, ROWS)
    assert RewardModel(folder).score(PROMPTS, RESPONSES, quiet) == pytest.approx(expected, abs=2e-5)
    assert "padding changes its rewards" in caplog.text


def test_a_batch_that_does_not_fit_is_halved_and_a_row_that_does_not_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = RewardModel(rewarding.save(tmp_path))
    expected = model.score(PROMPTS, RESPONSES, quiet)
    forward, most, seen = RewardHead._forward, 3, []

    def limited(self: RewardHead, rows: list[tuple[int, ...]]) -> list[float]:
        seen.append(len(rows))
        if len(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, rows)

    monkeypatch.setattr(RewardHead, "_forward", limited)
    assert model.score(PROMPTS, RESPONSES, quiet) == pytest.approx(expected, abs=2e-5)
    assert max(seen) == 5
    most = 0
    with pytest.raises(EngineError, match=r"tokens does not fit into memory .* overflow=skip"):
        model.score([USER], ["a"], quiet)


def test_a_row_that_is_too_long_is_an_error_before_any_work_or_has_no_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = rewarding.save(tmp_path)
    prompts, responses = [USER, "word " * 600], ["Paris.", "no"]
    model = RewardModel(folder)
    monkeypatch.setattr(RewardModel, "_head", None)  # nothing is loaded
    with pytest.raises(
        OverflowLengthError, match=r"row 1: \d+ tokens are more than max_length 512"
    ):
        model.score(prompts, responses, quiet)
    monkeypatch.undo()
    skipped = RewardModel(folder, overflow="skip").score(prompts, responses, quiet)
    assert skipped[:1] == pytest.approx(rewarding.plain(folder, ROWS[:1]), abs=2e-5)
    assert isinstance(skipped[1], Problem) and str(skipped[1]).startswith("too long: ")
    assert isinstance(
        RewardModel(folder, overflow="skip", max_length=8).score([USER], ["a"], quiet)[0], Problem
    )
    with pytest.raises(ConfigError, match=r"max_length=513 is more than .* can read \(512"):
        RewardModel(folder, max_length=513)


def test_a_reward_that_is_not_finite_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = RewardModel(rewarding.save(tmp_path))
    monkeypatch.setattr(RewardHead, "_forward", lambda self, rows: [math.inf] * len(rows))
    (got,) = model.score([USER], ["a"], quiet)
    assert (
        str(got) == "not finite: the reward is inf; float32 or bfloat16 reach further than float16"
    )


def test_what_the_template_does_not_show_is_noted(tmp_path: Path) -> None:
    model = RewardModel(rewarding.save(tmp_path, template="bare"))
    model.score([[{"role": "system", "content": "Be brief."}, *USER]], ["Paris."], quiet)
    assert sum(model.notes.values()) == 1 and "part of the prompt is not in" in min(model.notes)


def edit(folder: str, name: str, **values: Any) -> None:
    path = Path(folder) / name
    loaded = json.loads(path.read_text())
    kept = {key: value for key, value in {**loaded, **values}.items() if value is not None}
    path.write_text(json.dumps(kept))


def no_head(folder: str) -> None:
    weights = tf.LlamaForSequenceClassification.from_pretrained(folder).state_dict()
    from safetensors.torch import save_file

    weights["v_head.weight"] = weights.pop("score.weight")
    save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})


def two_outputs(folder: str) -> None:
    torch.manual_seed(0)
    made = tf.LlamaForSequenceClassification(rewarding.CONFIGS["llama"]())
    made.score = torch.nn.Linear(32, 2, bias=False)
    made.config.num_labels = 1
    made.save_pretrained(folder)


def another_kind(folder: str) -> None:
    edit(folder, "config.json", architectures=["LlamaForTokenClassification"])


def labels(folder: str) -> None:
    edit(folder, "config.json", id2label={"0": "bad", "1": "good"}, label2id=None)


def causal(folder: str) -> None:
    tiny.model("llama").save_pretrained(folder)


def unnamed_causal(folder: str) -> None:
    causal(folder)
    edit(folder, "config.json", architectures=None)


def pickled(folder: str) -> None:
    path = Path(folder)
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pickled, r"no weights as safetensors but pytorch_model\.bin"),
        (no_head, r"lacks 1 weights of a LlamaFor.*, such as score.weight, which would be random"),
        (unnamed_causal, r"such as score.weight, which would be random\. It is no trained reward"),
        (
            two_outputs,
            r"score.weight has the shape \(2, 32\), and .* with one output it is \(1, 32\)",
        ),
        (labels, "has num_labels=2, and a reward model gives one number"),
        (another_kind, "is a LlamaForTokenClassification, and a reward model is"),
        (causal, r"is a LlamaForCausalLM.* scored by --model hf, or as a side of --model drsow"),
    ],
)
def test_checkpoints_that_are_no_reward_models_are_refused(
    tmp_path: Path, change: Any, message: str
) -> None:
    folder = rewarding.save(tmp_path)
    change(folder)
    with pytest.raises(ConfigError, match=message):
        RewardModel(folder).score([USER], ["a"], quiet)


def test_a_checkpoint_that_says_nothing_of_labels_has_the_ones_of_its_head(tmp_path: Path) -> None:
    folder = rewarding.save(tmp_path)
    expected = rewarding.plain(folder, ROWS)
    edit(folder, "config.json", id2label=None, label2id=None, num_labels=None)
    assert tf.AutoConfig.from_pretrained(folder).num_labels == 2
    assert RewardModel(folder).score(PROMPTS, RESPONSES, quiet) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "has no chat template, .* Give the template of its training: template=FILE"),
        ({"template": "none"}, "template=none: a trained reward model reads whole conversations"),
        ({"template": "nothing.jinja"}, "model_template='nothing.jinja': no such file"),
        ({"overflow": "truncate_prompt"}, "Unknown value of overflow 'truncate_prompt'"),
        ({"adapter": "x"}, "Unknown option of a reward model 'adapter'"),
        ({"dtype": "float8"}, "model_dtype"),
        ({"model": "other"}, "A reward model is one Hub id or folder"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    folder = rewarding.save(tmp_path, template=None)
    with pytest.raises(ConfigError, match=message):
        RewardModel(folder, **options)


def test_a_gguf_file_and_a_template_without_the_response_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match="is a GGUF file, and reward models are read from"):
        RewardModel(str(tmp_path / "m.gguf"))
    folder = rewarding.save(tmp_path / "m")
    for source, message in [
        ("{{ messages[0]['content'] }}", "leaves the assistant's message out"),
        ("{{ raise_exception('No.') }}", "cannot render a user turn and a response: No"),
    ]:
        (tmp_path / "t.jinja").write_text(source)
        with pytest.raises(ConfigError, match=message):
            RewardModel(folder, template=str(tmp_path / "t.jinja"))


def test_a_conversation_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    model = RewardModel(rewarding.save(tmp_path, template="mistral"))
    with pytest.raises(DataError, match=r"row 1: the chat template refuses .*roles must alter"):
        model.score([USER, [*USER, *USER]], ["a", "b"], quiet)


def test_files_that_change_meanwhile_spoil_the_rewards(tmp_path: Path) -> None:
    folder = rewarding.save(tmp_path)
    model = RewardModel(folder)
    model.score([USER], ["a"], quiet)
    edit(folder, "config.json", note="x" * 100)
    with pytest.raises(EngineError, match=r"config.json was changed while the model was in use"):
        model.score([USER], ["a"], quiet)
