"""The head at the positions that predict a response token: log-probs, part by part."""

from __future__ import annotations

import torch

from drsow_plugin.engines.local.network import Network

# Maximum memory for one part of the logits, in float32: all of the vocabulary for some positions,
# or all positions for a part of it, which on a CPU stays in the cache.
_LOGIT_BYTES = {"cpu": 32 << 20}
_PART_BYTES = {"cpu": 8 << 20}
_GPU_LOGIT_BYTES = 512 << 20
_MIN_PART = 128  # positions or entries of the vocabulary: a smaller matrix product is slow
_SUMMED = 64  # exponentials that are summed in float32, before the sums are in float64


def logprobs_of(
    network: Network, hidden: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return ln p of each target: its logit minus the log-sum-exp of all.

    Up to rounding::

        logprobs = network.logits(hidden).log_softmax(dim=-1)  # (positions, vocabulary)
        logprobs[positions, targets]

    The exponentials are taken in float32 (float64 for a float64 model) after subtracting the
    maximum, and summed in float64 but for a few at a time: a float32 sum over a vocabulary of
    49,152 is off by up to 3e-3 nats a response.

    Args:
        network: The model.
        hidden: Hidden states of the positions that predict, (positions, hidden size).
        positions: For each target the position that predicts it, ascending, (targets,).
        targets: Token ids, (targets,).

    Returns:
        (targets,), in nats, float64, on the CPU.

    Raises:
        IndexError: A target is not in the vocabulary.
    """
    if not 0 <= int(targets.min()) <= int(targets.max()) < network.vocab_size:
        raise IndexError(f"a target is out of range of the vocabulary of {network.vocab_size}")
    if network.linear_head is not None:
        return _by_vocabulary(network.linear_head, hidden, positions, targets)
    limit = _LOGIT_BYTES.get(hidden.device.type, _GPU_LOGIT_BYTES)
    size = max(_MIN_PART, limit // (4 * network.vocab_size))
    starts = range(0, len(hidden), size)
    cuts = torch.searchsorted(positions, torch.tensor([*starts, len(hidden)])).tolist()
    values = []
    for start, first, last in zip(starts, cuts[:-1], cuts[1:], strict=True):
        logits = _at_least_float32(network.logits(hidden[start : start + size]))
        here = (positions[first:last] - start).to(logits.device)
        values.append(_by_position(logits, here, targets[first:last].to(logits.device)))
    return torch.cat(values).cpu().double()


def _by_position(
    logits: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return ln p of targets, (targets,); the logits, (positions, vocabulary), are used up."""
    maximum = logits.amax(dim=-1, keepdim=True)
    selected = (logits[positions, targets] - maximum[positions, 0]).to(_sum_dtype(logits))
    return selected - _sum_of_exp(logits, maximum).log()[positions]


def _by_vocabulary(
    head: tuple[torch.Tensor, torch.Tensor | None],
    hidden: torch.Tensor,
    positions: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    """Return ln p of targets for a head that is a linear layer, a part of the vocabulary at once.

    A matrix product of all positions with a part of the vocabulary is faster than one of a few
    positions with all of it.
    """
    weight, bias = head
    hidden = hidden.to(weight.device)
    order = torch.argsort(targets)
    limit = _PART_BYTES.get(hidden.device.type, _GPU_LOGIT_BYTES)
    size = max(_MIN_PART, limit // (4 * len(hidden)) // _SUMMED * _SUMMED)
    starts = range(0, len(weight), size)
    cuts = torch.searchsorted(targets[order], torch.tensor([*starts, len(weight)])).tolist()
    maximum = _at_least_float32(hidden.new_full((len(hidden), 1), -torch.inf))
    total = torch.zeros(len(hidden), dtype=_sum_dtype(maximum), device=hidden.device)
    selected = torch.full((len(targets),), torch.nan, dtype=total.dtype, device=hidden.device)
    for start, first, last in zip(starts, cuts[:-1], cuts[1:], strict=True):
        part = None if bias is None else bias[start : start + size]
        logits = _at_least_float32(
            torch.nn.functional.linear(hidden, weight[start : start + size], part)
        )
        here = order[first:last]
        rows, entries = (x.to(hidden.device) for x in (positions[here], targets[here] - start))
        selected[here.to(hidden.device)] = logits[rows, entries].to(selected.dtype)
        higher = torch.maximum(maximum, logits.amax(dim=-1, keepdim=True))
        higher = higher.clamp_min(torch.finfo(higher.dtype).min)  # where all are minus infinity
        total *= (maximum - higher).squeeze(1).to(total.dtype).exp()
        total += _sum_of_exp(logits, higher)
        maximum = higher
    positions = positions.to(hidden.device)
    maxima = maximum.squeeze(1).to(total.dtype)
    return (selected - maxima[positions] - total.log()[positions]).cpu().double()


def _sum_of_exp(logits: torch.Tensor, maximum: torch.Tensor) -> torch.Tensor:
    """Return the sums of exp(logits - maximum), (positions,); the logits are used up."""
    logits.sub_(maximum).exp_()
    whole = logits.shape[1] // _SUMMED * _SUMMED
    parts = logits[:, :whole].view(len(logits), -1, _SUMMED).sum(dim=-1)
    rest = logits[:, whole:].to(_sum_dtype(logits))
    total: torch.Tensor = parts.to(rest.dtype).sum(dim=-1) + rest.sum(dim=-1)
    return total


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _sum_dtype(tensor: torch.Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64
