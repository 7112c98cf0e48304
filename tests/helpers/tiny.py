"""Tiny random models and small real tokenizers, built here: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import tokenizers as tk
import torch
import transformers as tf

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}{% set c = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
    " + m['content'] | trim + '<|eot_id|>' %}{% if loop.first %}{% set c = bos_token + c %}{% endif %}"
    "{{ c }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = m['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# In the manner of Qwen 3: earlier reasoning is stripped, the last turn gets its own or an empty block.
THINKING = (
    "{% for m in messages %}{% set c = m['content'] %}{% if m['role'] == 'assistant' %}"
    "{% set r = '' %}{% if '</think>' in c %}"
    "{% set r = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.last %}{% set c = '<think>\n' + r + '\n</think>\n\n' + c %}{% endif %}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + c + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
# In the manner of R1: the generation prompt opens a block that no finished turn has.
REASONER = CHATML.replace("assistant\n' }}{% endif %}", "assistant\n<think>\n' }}{% endif %}")
# In the manner of harmony: an answer stands in a channel that the generation prompt leaves open.
CHANNELS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] }}"
    "{% if m['role'] == 'assistant' %}{{ '<|channel|>final' }}{% endif %}"
    "{{ '<|message|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
)
# Written for training alone, without a generation prompt.
UNPROMPTED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
)
# Closes earlier turns only, and drops the system message without a word.
BARE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ 'USER: ' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ASSISTANT: ' + m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT: ' }}{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "thinking": THINKING,
    "bare": BARE,
}
TEMPLATE_ARGS = {"thinking": {"enable_thinking": False}}
SPECIALS = [
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"),
]
CORPUS = [
    "Write a short answer to the question, please. The quick brown fox jumps over the lazy dog.",
    "def add(a, b):\n    return a + b\n\nfor i in range(10):\n    print(i)\n",
    "user\nassistant\nsystem\n\nWhat is the capital of France? It is Paris.\n\n- one\n- two\n",
    "Ça va très bien, naïve façade. Привет мир. 你好,世界。",
]
TOKENIZERS = ("gpt2", "gpt2_bos", "bytes", "sentencepiece")


def tokenizer(kind: str, template: str | None = "chatml") -> tf.PreTrainedTokenizerFast:
    """Return a real tokenizer of one of the families in ``TOKENIZERS``.

    ``gpt2``: byte-level BPE with GPT-2's splitting, no BOS token; ``gpt2_bos``: the same with
    a BOS that it adds by default; ``bytes``: one token a byte; ``sentencepiece``: BPE with a
    word-start mark on every text, byte fallback, and a BOS that it adds by default.
    """
    bos = None if kind == "gpt2" else "<s>"
    if kind == "sentencepiece":
        core = _sentencepiece()
    else:
        core = tk.Tokenizer(tk.models.BPE())
        core.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = tk.decoders.ByteLevel()
        alphabet = tk.pre_tokenizers.ByteLevel.alphabet()
        size = len(alphabet) + (0 if kind == "bytes" else 200)
        trainer = tk.trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=alphabet, show_progress=False
        )
        core.train_from_iterator(CORPUS, trainer)
    core.add_special_tokens(SPECIALS)
    if kind in ("gpt2_bos", "sentencepiece"):
        start = core.token_to_id("<s>")
        core.post_processor = tk.processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", start)]
        )
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=bos,
        eos_token="</s>",
        chat_template=TEMPLATES[template] if template else None,
        clean_up_tokenization_spaces=False,
    )


def _sentencepiece() -> tk.Tokenizer:
    core = tk.Tokenizer(tk.models.BPE(byte_fallback=True, unk_token="<unk>"))
    core.normalizer = tk.normalizers.Sequence(
        [tk.normalizers.Prepend("▁"), tk.normalizers.Replace(" ", "▁")]
    )
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = tk.trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", *fallback],
        initial_alphabet=["▁"],
        show_progress=False,
    )
    core.train_from_iterator((line for text in CORPUS[:1] for line in text.split("\n")), trainer)
    core.decoder = tk.decoders.Sequence(
        [
            tk.decoders.Replace("▁", " "),
            tk.decoders.ByteFallback(),
            tk.decoders.Fuse(),
            tk.decoders.Strip(" ", 1, 0),
        ]
    )
    return core


_SIZES = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_GPT2 = {"vocab_size": 512, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
_NO_GROUPS = {k: v for k, v in _SIZES.items() if k != "num_key_value_heads"}
CONFIGS = {
    "llama": lambda: tf.LlamaConfig(**_SIZES),
    "mistral_sliding": lambda: tf.MistralConfig(**_SIZES, sliding_window=8),
    "qwen2": lambda: tf.Qwen2Config(**_SIZES),
    "qwen3": lambda: tf.Qwen3Config(**_SIZES, head_dim=8),
    "gemma2_softcap": lambda: tf.Gemma2Config(
        **_SIZES, head_dim=8, sliding_window=8, final_logit_softcapping=3.0
    ),
    "cohere_scaled": lambda: tf.CohereConfig(**_SIZES, logit_scale=0.25),
    "granite_scaled": lambda: tf.GraniteConfig(**_SIZES, logits_scaling=4.0),
    "gpt_neox": lambda: tf.GPTNeoXConfig(**_NO_GROUPS),
    "gpt2": lambda: tf.GPT2Config(**_GPT2),
    "opt": lambda: tf.OPTConfig(
        **{k: v for k, v in _NO_GROUPS.items() if k != "intermediate_size"},
        ffn_dim=48,
        word_embed_proj_dim=32,
    ),
    "phi": lambda: tf.PhiConfig(**_SIZES),
    "phi3_longrope": lambda: tf.Phi3Config(
        **_SIZES,
        original_max_position_embeddings=48,
        pad_token_id=0,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
        },
    ),
    "mixtral": lambda: tf.MixtralConfig(**_SIZES, num_local_experts=4),
    "gpt_oss_sinks": lambda: tf.GptOssConfig(
        **_SIZES, head_dim=8, sliding_window=8, num_local_experts=4, num_experts_per_tok=2
    ),
    "deepseek_latent": lambda: tf.DeepseekV3Config(
        **_NO_GROUPS,
        **{"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "v_head_dim": 8},
        **{"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "moe_intermediate_size": 16},
        **{"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
        first_k_dense_replace=1,
    ),
    "jamba_hybrid": lambda: tf.JambaConfig(
        **{**_SIZES, "num_hidden_layers": 5}, use_mamba_kernels=False, num_experts=2
    ),
    "bloom_alibi": lambda: tf.BloomConfig(vocab_size=512, hidden_size=32, n_layer=2, n_head=4),
    "mamba": lambda: tf.MambaConfig(
        vocab_size=512, hidden_size=32, num_hidden_layers=2, state_size=8
    ),
}


def model(arch: str = "llama", seed: int = 0) -> torch.nn.Module:
    """Return a random model whose predictions are not uniform."""
    return from_config(CONFIGS[arch](), seed)


def from_config(config: tf.PretrainedConfig, seed: int = 0) -> torch.nn.Module:
    """Return a random model of a configuration whose predictions are not uniform."""
    torch.manual_seed(seed)
    if getattr(config, "attn_logit_softcapping", None):
        config._attn_implementation = "eager"  # the usual one leaves it out before 5.21
    made = tf.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        made.get_output_embeddings().weight.normal_(0, 1 / 32**0.5)
    return made


def weighty(made: torch.nn.Module) -> torch.nn.Module:
    """Let a model's layers change what goes through them, as those of trained models do."""
    with torch.no_grad():
        for parameter in made.model.layers.parameters():
            parameter.mul_(10 if parameter.dim() > 1 else 1)
    return made


def save(
    folder: Path,
    arch: str = "llama",
    *,
    seed: int = 0,
    kind: str = "gpt2_bos",
    template: str | None = "chatml",
) -> str:
    """Save a random model with a tokenizer and return the folder."""
    model(arch, seed).save_pretrained(folder)
    tokenizer(kind, template).save_pretrained(folder)
    return str(folder)
