"""Whether the head of a model is a linear layer and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

logger = logging.getLogger(__name__)


def linear_layer(model: Any) -> torch.nn.Linear | None:
    """Return the layer of a model's head, if it is a linear one that adapters left alone."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return head if type(head) is torch.nn.Linear else None


def is_linear(
    model: Any, hidden: torch.Tensor, head: Callable[[torch.Tensor], torch.Tensor]
) -> bool:
    """Compare the logits of a few hidden states with the product of the head's weight.

    Args:
        model: The model.
        hidden: Hidden states, (positions, hidden size).
        head: Returns the logits, (positions, vocabulary).
    """
    layer = linear_layer(model)
    if layer is None or hasattr(layer, "_hf_hook"):
        return False
    hidden = hidden.to(layer.weight.device)
    if hidden.dtype != layer.weight.dtype or hidden.shape[-1] != layer.weight.shape[-1]:
        return False
    logits = head(hidden).to(hidden.device)
    product = torch.nn.functional.linear(hidden, layer.weight, layer.bias).to(logits.dtype)
    if torch.equal(product, logits):  # the same product, or something was done to it
        return True
    logger.info(
        "%s: its head does more than multiply, or rounds otherwise (by up to %.2g), so that logits "
        "are computed for all of the vocabulary at once.",
        *(type(model).__name__, float((product - logits).abs().max())),
    )
    return False
