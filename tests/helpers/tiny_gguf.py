"""A tiny random model as a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np

from helpers import tiny

HIDDEN, INNER, HEADS, KEY_HEADS, LAYERS = 32, 64, 4, 2, 2


def save(path: Path, *, seed: int = 0, context: int = 512, leave_out: str | None = None) -> Path:
    """Write a random llama with a byte-level tokenizer, in Q8_0; return its path.

    Args:
        path: The file.
        seed: Of the weights.
        context: How many tokens it reads at most.
        leave_out: Name of a tensor that is not written.
    """
    core = json.loads(tiny.tokenizer("gpt2_bos").backend_tokenizer.to_str())
    vocabulary = dict(core["model"]["vocab"])
    vocabulary.update({token["content"]: token["id"] for token in core["added_tokens"]})
    special = {token["content"] for token in core["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    kinds = [
        gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens
    ]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in core["model"]["merges"]])
    writer.add_bos_token_id(vocabulary["<s>"])
    writer.add_eos_token_id(vocabulary["</s>"])
    writer.add_chat_template(tiny.CHATML)
    keys = HIDDEN // HEADS * KEY_HEADS
    shapes = {"token_embd": (len(tokens), HIDDEN), "output": (len(tokens), HIDDEN)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.attn_q": (HIDDEN, HIDDEN),
            f"blk.{layer}.attn_k": (keys, HIDDEN),
            f"blk.{layer}.attn_v": (keys, HIDDEN),
            f"blk.{layer}.attn_output": (HIDDEN, HIDDEN),
            f"blk.{layer}.ffn_gate": (INNER, HIDDEN),
            f"blk.{layer}.ffn_up": (INNER, HIDDEN),
            f"blk.{layer}.ffn_down": (HIDDEN, INNER),
        }
    norms = ["output_norm"]
    norms += [f"blk.{layer}.{n}_norm" for layer in range(LAYERS) for n in ("attn", "ffn")]
    random = np.random.default_rng(seed)
    for name, shape in shapes.items():
        values = random.normal(0, shape[1] ** -0.5, shape).astype(np.float32)
        packed = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
        if name != leave_out:
            writer.add_tensor(f"{name}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
