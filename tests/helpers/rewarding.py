"""Tiny random reward models, and what plain transformers says of the same rows in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as tf

from helpers import tiny

_SIZES = {**tiny._SIZES, "num_labels": 1}
CONFIGS = {
    "llama": lambda **more: tf.LlamaConfig(**{**_SIZES, **more}),
    "qwen3": lambda **more: tf.Qwen3Config(**{**_SIZES, **more}, head_dim=8),
    "modernbert": lambda **more: tf.ModernBertConfig(
        **{"vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
        **{"intermediate_size": 48, "max_position_embeddings": 512, "num_labels": 1},
        **{"bos_token_id": None, "cls_token_id": None, "sep_token_id": None},
        **{"attn_implementation": "sdpa", "eos_token_id": None, **more},
    ),
}
CLASSES = {
    "llama": tf.LlamaForSequenceClassification,
    "qwen3": tf.Qwen3ForSequenceClassification,
    "modernbert": tf.ModernBertForSequenceClassification,
}


def save(
    folder: Path,
    arch: str = "llama",
    *,
    kind: str = "gpt2_bos",
    template: str | None = "chatml",
    **config: Any,
) -> str:
    """Save a random reward model with a tokenizer and return the folder."""
    torch.manual_seed(7)
    made = CLASSES[arch](CONFIGS[arch](**config))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:
                parameter.mul_(5)
    made.save_pretrained(folder)
    tiny.tokenizer(kind, template).save_pretrained(folder)
    return str(folder)


def plain(
    folder: str, rows: Sequence[tuple[Sequence[Mapping[str, str]], str]], *, card: bool = True
) -> list[float]:
    """Return rewards as the cards of published reward models compute them, a row at a time.

    Args:
        folder: The model.
        rows: Messages of the prompt, and responses.
        card: Whether the tokenizer adds what it adds to any text and a BOS in front of that goes,
            as cards do; else the template's rendering is tokenized alone, as TRL's trainer does.
    """
    model = tf.AutoModelForSequenceClassification.from_pretrained(folder, dtype="float64").eval()
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    rewards = []
    for messages, response in rows:
        turns = [*messages, {"role": "assistant", "content": response}]
        if card:
            text = tokenizer.apply_chat_template(turns, tokenize=False)
            if tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token):
                text = text[len(tokenizer.bos_token) :]
            inputs = tokenizer(text, return_tensors="pt")
        else:
            inputs = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)
        inputs.pop("token_type_ids", None)
        with torch.no_grad():
            rewards.append(model(**inputs).logits[0][0].item())
    return rewards
