"""The head at the positions that predict a response token: log-probs, part by part."""

from __future__ import annotations

import logging
from functools import cache

import torch

from drsow_plugin.engines.local.budget import free_memory
from drsow_plugin.engines.local.failures import one_line
from drsow_plugin.engines.local.fold import Fold, sum_dtype, sum_of_exp
from drsow_plugin.engines.local.network import Network

logger = logging.getLogger(__name__)

# Maximum memory for one part of the logits, in float32: all of the vocabulary for some positions,
# or all positions for a part of it, which on a CPU stays in the cache.
_LOGIT_BYTES = {"cpu": 32 << 20, "cuda": 2 << 30}
_PART_BYTES = {"cpu": 8 << 20}
_OTHER_BYTES = 512 << 20
_FREE_SHARE = 8  # a part of the logits is at most this part of a GPU's free memory
_MIN_PART = 128  # positions or entries of the vocabulary: a smaller matrix product is slow
_MULTIPLE = 64  # of it parts of the vocabulary are whole
_TILE = (4096, 8192)  # positions and entries of the vocabulary at once on a GPU: 134 MB of logits


def logprobs_of(
    network: Network, hidden: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return ln p of each target: its logit minus the log-sum-exp of all.

    Up to rounding::

        logprobs = network.logits(hidden).log_softmax(dim=-1)  # (positions, vocabulary)
        logprobs[positions, targets]

    The exponentials are taken in float32 (float64 for a float64 model) after subtracting the
    maximum, and summed in float64 but for some at a time: a float32 sum over a vocabulary of
    49,152 is off by up to 3e-3 nats a response.

    On a GPU nothing here waits for it, so that the next chunk is prepared meanwhile.

    Args:
        network: The model.
        hidden: Hidden states of the positions that predict, (positions, hidden size).
        positions: For each target the position that predicts it, ascending, (targets,), on the
            CPU.
        targets: Token ids, all in the vocabulary, (targets,), on the CPU.

    Returns:
        (targets,), in nats, float64 (float32 on MPS), on the device of the head.
    """
    if network.linear_head is not None:
        weight, bias = network.linear_head
        hidden = hidden.to(weight)  # under autocast of another dtype too
        by_tile = weight.is_cuda and _has_exact_products(weight.device, weight.dtype)
        by_part = _by_tile if by_tile else _by_vocabulary
        return by_part(weight, bias, hidden, positions, targets)
    size = max(_MIN_PART, _logit_bytes(hidden.device) // (4 * network.vocab_size))
    starts = range(0, len(hidden), size)
    cuts = torch.searchsorted(positions, torch.tensor([*starts, len(hidden)])).tolist()
    values = []
    for start, first, last in zip(starts, cuts[:-1], cuts[1:], strict=True):
        logits = _at_least_float32(network.logits(hidden[start : start + size]))
        here = (positions[first:last] - start, targets[first:last])
        values.append(_by_position(logits, *(_moved(x, logits.device) for x in here)))
    return torch.cat(values)


def _by_position(
    logits: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return ln p of targets, (targets,); the logits, (positions, vocabulary), are used up."""
    maximum = logits.amax(dim=-1, keepdim=True)
    selected = (logits[positions, targets] - maximum[positions, 0]).to(sum_dtype(logits))
    return selected - sum_of_exp(logits, maximum).log()[positions]


def _logit_bytes(device: torch.device) -> int:
    """Return the maximum memory for all of the vocabulary at some positions."""
    limit = _LOGIT_BYTES.get(device.type, _OTHER_BYTES)
    free = free_memory(device) if device.type == "cuda" else None
    return limit if free is None else min(limit, free // _FREE_SHARE)


@cache
def _has_exact_products(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether products of a dtype can be had as they are summed, in float32 or better."""
    if dtype not in (torch.float16, torch.bfloat16):
        return True
    try:
        _product(*torch.zeros(2, 8, 8, dtype=dtype, device=device).unbind())
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError) as error:
        logger.info(
            "Logits on %s are rounded to %s, since torch %s gives no others: %s",
            *(device, dtype, torch.__version__, one_line(error)),
        )
        return False
    return True


def _product(
    hidden: torch.Tensor, weight: torch.Tensor, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Return hidden @ weight.T, (positions, entries), in float32 or better."""
    if hidden.dtype in (torch.float16, torch.bfloat16):
        return torch.mm(hidden, weight.t(), out_dtype=torch.float32, out=out)
    return torch.mm(hidden, weight.t(), out=out)


def _by_tile(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    hidden: torch.Tensor,
    positions: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    """Return ln p of targets for a linear head on a GPU; no logit is rounded to a half dtype.

    Up to rounding::

        logits = hidden.float() @ weight.float().T + bias
        logits.log_softmax(dim=-1)[positions, targets]
    """
    height, width = _TILE
    starts = torch.arange(0, len(weight), width, device=weight.device)
    positions, targets = _moved(positions, weight.device), _moved(targets, weight.device)
    size = min(height, len(hidden)) * min(width, len(weight))
    memory = _at_least_float32(weight.new_empty(0)).new_empty(size)
    fold = Fold(memory, starts, len(hidden), positions, targets)
    for start in range(0, len(hidden), height):
        some = hidden[start : start + height]
        for part, entries in enumerate(torch.split(weight, width)):
            logits = memory[: len(some) * len(entries)].view(len(some), len(entries))
            _product(some, entries, out=logits)
            if bias is not None:
                logits += bias[part * width : part * width + len(entries)]
            fold.add(logits, start, part)
    return fold.logprobs()


def _by_vocabulary(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    hidden: torch.Tensor,
    positions: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    """Return ln p of targets for a linear head, a part of the vocabulary at once.

    A matrix product of all positions with a part of the vocabulary is faster than one of a few
    positions with all of it.
    """
    order = torch.argsort(targets)
    limit = _PART_BYTES.get(hidden.device.type, _OTHER_BYTES)
    size = max(_MIN_PART, limit // (4 * len(hidden)) // _MULTIPLE * _MULTIPLE)
    starts = range(0, len(weight), size)
    cuts = torch.searchsorted(targets[order], torch.tensor([*starts, len(weight)])).tolist()
    maximum = _at_least_float32(hidden.new_full((len(hidden), 1), -torch.inf))
    total = torch.zeros(len(hidden), dtype=sum_dtype(maximum), device=hidden.device)
    selected = torch.full((len(targets),), torch.nan, dtype=total.dtype, device=hidden.device)
    for start, first, last in zip(starts, cuts[:-1], cuts[1:], strict=True):
        part = None if bias is None else bias[start : start + size]
        logits = _at_least_float32(
            torch.nn.functional.linear(hidden, weight[start : start + size], part)
        )
        here = order[first:last]
        rows, entries = (_moved(x, hidden.device) for x in (positions[here], targets[here] - start))
        selected[_moved(here, hidden.device)] = logits[rows, entries].to(selected.dtype)
        higher = torch.maximum(maximum, logits.amax(dim=-1, keepdim=True))
        higher = higher.clamp_min(torch.finfo(higher.dtype).min)  # where all are minus infinity
        total *= (maximum - higher).squeeze(1).to(total.dtype).exp()
        total += sum_of_exp(logits, higher)
        maximum = higher
    positions = _moved(positions, hidden.device)
    maxima = maximum.squeeze(1).to(total.dtype)
    return selected - maxima[positions] - total.log()[positions]


def _moved(indices: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return indices on a device; a GPU is not waited for."""
    if device.type != "cuda":
        return indices.to(device)
    return indices.pin_memory().to(device, non_blocking=True)


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
