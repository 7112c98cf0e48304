"""Log-probs by the plainest code: one row at a time, float64, the model's own forward."""

from __future__ import annotations

from collections.abc import Sequence

import torch


@torch.no_grad()
def token_logprobs(
    model: torch.nn.Module, prompt_ids: Sequence[int], response_ids: Sequence[int]
) -> list[float]:
    """Return ln p of each response token.

    Args:
        prompt_ids: What the response continues.
        response_ids: The tokens to score.
        model: In float64; some architectures round the logits themselves to float32.
    """
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the faster ones know no float64
    ids = torch.tensor([[*prompt_ids, *response_ids]])
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
    table = logits.double().log_softmax(-1)
    first = len(prompt_ids) - 1
    return [table[first + i, token].item() for i, token in enumerate(response_ids)]
