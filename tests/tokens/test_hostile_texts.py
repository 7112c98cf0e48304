"""Texts that would be read as more, or as less, than they say."""

from __future__ import annotations

import pytest
import tokenizers as tk
import transformers as tf
from helpers import tiny
from helpers.rendering import Renderer

from drsow_plugin.errors import TemplateError


def _turns(content: str) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": content},
        {"role": "user", "content": "Sure?"},
    ]


def test_no_mark_is_left_where_a_template_cuts_a_control_token_out() -> None:
    tokenizer = tiny.tokenizer("gpt2")
    tokenizer.add_tokens([tf.AddedToken(n, special=True) for n in ("<think>", "</think>")])
    source = tiny.CHATML.replace("m['content'] +", "m['content'].split('</think>')[-1] +")
    made = Renderer(tokenizer, source)
    cut = made.encode(_turns("<think>x</think>Yes."), "Paris.", "row 0")
    assert cut.prompt_ids == made.encode(_turns("Yes."), "Paris.", "row 0").prompt_ids


def _byte_level(core: tk.Tokenizer) -> tk.Tokenizer:
    core.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tk.decoders.ByteLevel()
    return core


def _text_ids(tokenizer: tf.PreTrainedTokenizerFast, text: str) -> list[int]:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    return [*tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True), end]


def test_a_vocabulary_with_a_hole_is_refused_beside_a_control_token() -> None:
    vocabulary = {c: i for i, c in enumerate(sorted(tk.pre_tokenizers.ByteLevel.alphabet()))}
    size = len(vocabulary)
    vocabulary |= {c: size + i for i, c in enumerate("abcdefghijklmnop")}
    names = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    core = _byte_level(
        tk.Tokenizer(tk.models.BPE({**vocabulary, **{n: 300 + i for i, n in enumerate(names)}}, []))
    )
    core.add_special_tokens(names)
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
    made = Renderer(tokenizer, tiny.CHATML)
    turn = [{"role": "user", "content": "Hi"}]
    assert list(made.encode(turn, "a bold plan", "row 0").response_ids) == _text_ids(
        tokenizer, "a bold plan"
    )
    with pytest.raises(TemplateError, match=r"row 0: the ids of the vocabulary have gaps"):
        made.encode(turn, "a bold plan<|im_end|>", "row 0")


def test_a_control_token_that_only_normalisation_makes_is_text_too() -> None:
    core = _byte_level(tk.Tokenizer(tk.models.BPE()))
    core.normalizer = tk.normalizers.NFKC()
    alphabet = tk.pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        tiny.CORPUS,
        tk.trainers.BpeTrainer(
            vocab_size=len(alphabet) + 100, initial_alphabet=alphabet, show_progress=False
        ),
    )
    core.add_special_tokens(["<s>", "</s>"])
    core.add_special_tokens(
        [tk.AddedToken(n, normalized=True) for n in ("<|im_start|>", "<|im_end|>")]
    )
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
    text = "It is\uff1c|im_end|\uff1e Paris."
    pair = Renderer(tokenizer, tiny.CHATML).encode(
        [{"role": "user", "content": "Hi"}], text, "row 0"
    )
    assert list(pair.response_ids) == _text_ids(tokenizer, text)


def test_control_tokens_in_the_names_of_fields_are_text() -> None:
    tokenizer = tiny.tokenizer("bytes")
    source = tiny.CHATML.replace(
        "m['content'] +", "m['content'] + (m.tool_calls | tojson if m.tool_calls else '') +"
    )
    call = [{"function": {"name": "f", "arguments": {"<|im_end|>": 1}}}]
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "tool_calls": call},
        {"role": "user", "content": "Sure?"},
    ]
    ids = Renderer(tokenizer, source).encode(messages, "Paris.", "row 0").prompt_ids
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 3


def test_a_control_token_across_a_begun_answer_and_its_response_is_text() -> None:
    core = tk.Tokenizer(tk.models.Unigram())
    core.pre_tokenizer = tk.pre_tokenizers.Metaspace()
    core.train_from_iterator(
        tiny.CORPUS * 5,
        tk.trainers.UnigramTrainer(
            vocab_size=150, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
        ),
    )
    core.add_special_tokens(["<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", eos_token="</s>"
    )
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "|<"}]
    pair = Renderer(tokenizer, tiny.CHATML).encode(messages, "|im_end|> no", "row 0")
    assert pair.response_ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1


def test_white_space_of_a_begun_answer_is_kept_behind_a_token_that_strips() -> None:
    tokenizer = tiny.tokenizer("gpt2")
    tokenizer.add_tokens([tf.AddedToken("<|assistant|>", special=True, rstrip=True)])
    source = tiny.CHATML.replace(
        "'<|im_start|>' + m['role'] + '\n'", "'<|' + m['role'] + '|>'"
    ).replace("'<|im_start|>assistant\n'", "'<|assistant|>'")
    made = Renderer(tokenizer, source)
    user = {"role": "user", "content": "Hi"}
    with_, without = (
        made.encode([user, {"role": "assistant", "content": c}], "Paris.", "row 0")
        for c in ("  ", "")
    )
    assert with_.prompt_ids != without.prompt_ids or with_.notes != without.notes


def test_white_space_that_is_an_added_token_makes_no_row_unusual() -> None:
    tokenizer = tiny.tokenizer("sentencepiece")
    tokenizer.add_tokens([tf.AddedToken("\n", normalized=True)])
    turn = [{"role": "user", "content": "\nHi"}]
    pair = Renderer(tokenizer, tiny.CHATML).encode(turn, "\nYes.", "row 0")
    assert not pair.notes
    assert pair == Renderer(tokenizer, tiny.CHATML, control_tokens="parse").encode(
        turn, "\nYes.", "row 0"
    )
