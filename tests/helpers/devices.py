"""Where tests run, and tiny models whose heads are as large as those of large models."""

from __future__ import annotations

import pytest
import torch

from helpers import tiny

HAS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, HAS_GPU])]
"""For ``pytest.mark.parametrize``: the same test on a CPU, and on a GPU where it is asked for."""

HEAD_SIZES = {
    "llama": 64,
    "mistral_sliding": 128,
    "qwen3": 128,
    "gemma2_softcap": 256,
    "gpt_oss_sinks": 64,
}


def wide(arch: str) -> torch.nn.Module:
    """Return a random model with heads of a size that kernels for a GPU are made for.

    Its layers change what goes through them as much as those of trained models do, and what
    bounds its attention bites.
    """
    config = tiny.CONFIGS[arch]()
    config.head_dim = HEAD_SIZES[arch]
    if arch == "gemma2_softcap":
        config.attn_logit_softcapping = 1.0
    return tiny.weighty(tiny.from_config(config))
