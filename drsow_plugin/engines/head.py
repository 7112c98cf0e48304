"""The head at the positions that predict a response token: log-probs, chunk by chunk."""

from __future__ import annotations

import torch

from drsow_plugin.engines.network import Network

# Most memory for one chunk of logits, in float32; but a matrix product of fewer rows is slow.
_LOGIT_BYTES = {"cpu": 32 << 20}
_GPU_LOGIT_BYTES = 512 << 20
_LEAST_ROWS = 128
_BLOCK = 64  # exponentials that are summed in float32, before the sums are in float64


def logprobs_of(
    network: Network, hidden: torch.Tensor, predicting: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return ln p of each target: its logit minus the log-sum-exp of all.

    The exponentials are taken in float32 (float64 for a float64 model) after subtracting the
    maximum, and summed in float64 but for blocks of a few: a float32 sum over a vocabulary of
    49,152 is off by up to 3e-3 nats a response.

    Args:
        network: The model.
        hidden: Hidden states of the positions that predict, (positions, hidden size).
        predicting: For each target the position that predicts it, ascending, (targets,).
        targets: Token ids, (targets,).

    Returns:
        (targets,), in nats, float64, on the CPU.
    """
    limit = _LOGIT_BYTES.get(hidden.device.type, _GPU_LOGIT_BYTES)
    size = max(_LEAST_ROWS, limit // (4 * network.vocab_size))
    starts = range(0, len(hidden), size)
    cuts = torch.searchsorted(predicting, torch.tensor([*starts, len(hidden)])).tolist()
    values = []
    for start, first, last in zip(starts, cuts[:-1], cuts[1:], strict=True):
        logits = network.logits(hidden[start : start + size])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        where = (predicting[first:last] - start).to(logits.device)
        values.append(_logprobs(logits, where, targets[first:last].to(logits.device)))
    return torch.cat(values).cpu().double()


def _logprobs(logits: torch.Tensor, where: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return ln p of targets, (targets,); the logits, (positions, vocabulary), are used up."""
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    logits -= logits.amax(dim=-1, keepdim=True)
    chosen = logits[where, targets].to(wide)
    logits.exp_()
    whole = logits.shape[1] // _BLOCK * _BLOCK
    blocks = logits[:, :whole].unflatten(1, (-1, _BLOCK)).sum(dim=-1).to(wide).sum(dim=-1)
    total = blocks + logits[:, whole:].to(wide).sum(dim=-1)
    return chosen - total.log()[where]
