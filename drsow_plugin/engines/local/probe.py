"""Finds out, by trying, whether a model's rows may share what they have in common."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from drsow_plugin.engines.local import kernels
from drsow_plugin.engines.local.attention import Kernel, KeyValue, Packing
from drsow_plugin.engines.local.masks import UnshareableError
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.noise import nudged
from drsow_plugin.engines.local.tree import TokenTree
from drsow_plugin.records import TokenPair

logger = logging.getLogger(__name__)

# Rows in the order of the tree, and others of the same lengths that share as much; the numbers
# stand for the model's ordinary token ids.
_A, _B = (7, 4, 9, 2, 8, 3), (5, 6, 1)
_END = tuple(range(11, 21))
_PROBE = [(*_B, *_A), (*_A, *_END), (*_A, 21, 11, 22, 13, 23, 15), (*_A[:3], *_B, 24, 25)]
_NEIGHBOURS = [(*_B, *_A[::-1]), (*_A, *_END[:0:-1], 12), *_PROBE[2:]]
_MOST_ID = max(map(max, _PROBE))
_SAME = (2, 3)  # the rows that are in both
_TRIED = max(map(len, _PROBE)) - 1  # tokens of the longest row
_PROBE_TOKENS = 10  # so that the probe takes several chunks, which cut rows
# In units of what one rounding of the model's input comes to …
_MOST_DIFFERENCE, _MOST_INFLUENCE = 4.0, 0.5
_PATTERN = 13
# … or, where that is more: in nats a token, of which 500 add up to no more than is promised, and
# in standard deviations, since kernels round otherwise with other shapes, by some tokens a lot.
_LEAST_INFLUENCE = 5e-4 / 500**0.5
_LEAST_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Sharing:
    """How rows share prefixes.

    Attributes:
        kernel: What attends.
        longest: Most tokens of a row that may share; ``None`` for any.
    """

    kernel: Kernel
    longest: int | None


def find_sharing(network: Network) -> Sharing | None:
    """Score a few rows packed into a tree and one by one, and compare.

    Packed rows must come out as they do alone, whatever their neighbours are. Where they do
    not (a recurrent layer, position by distance in the sequence, an attention that is not
    handed over to transformers' attention interface), one line on the log says so.

    Returns:
        How rows share prefixes, or ``None`` if they cannot.
    """
    ways = [kernels.by_run]
    if network.device.type == "cuda" and network.dtype in (torch.float16, torch.bfloat16):
        ways.insert(0, kernels.by_varlen)
    problem = "its head cannot be applied apart from its body"
    for kernel in ways if network.splits else ():
        try:
            problem = _difference(network, kernel)
        except UnshareableError as error:
            problem = str(error)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a model's own code, run in a way it was not written for
            problem = f"it fails on packed rows ({type(error).__name__}: {error})"
        if not problem:
            return Sharing(kernel, _longest(network))
    logger.warning(
        "%s: rows cannot share what they have in common, and are scored one by one: %s.",
        network.name,
        problem,
    )
    return None


@torch.inference_mode()
def _difference(network: Network, kernel: Kernel) -> str:
    """Return in what packed rows differ from single ones; empty if they do not."""
    if not network.takes_positions:
        return "it is not told the positions of its tokens"
    longest = network.masks.longest
    if longest is not None and longest < _TRIED:
        return "its mask is neither causal nor a window"
    packed = _probe(network, kernel, _PROBE)
    others = _probe(network, kernel, _NEIGHBOURS)
    known = network.ordinary_ids(_MOST_ID + 1)
    for row, ids in enumerate(_PROBE):
        tokens = known[:, ids[:-1]]
        alone = _logprobs(network, network.hidden(tokens)[0])
        with nudged(network.embeddings, _PATTERN):
            noise = _apart(_logprobs(network, network.hidden(tokens)[0]), alone)
        influence = _apart(packed[row], others[row])
        if row in _SAME and not influence <= max(_MOST_INFLUENCE * noise, _LEAST_INFLUENCE):
            return "a row changes with its neighbours"
        least = _LEAST_DIFFERENCE * float(alone[alone.isfinite()].std())
        if not _apart(packed[row], alone) <= max(_MOST_DIFFERENCE * noise, least):
            return "a row comes out differently when it shares a prefix"
    return ""


def _probe(network: Network, kernel: Kernel, rows: list[tuple[int, ...]]) -> list[torch.Tensor]:
    """Return the log-probs in each row, (tokens but the last, vocabulary), in nats."""
    known = network.ordinary_ids(_MOST_ID + 1)[0].tolist()
    ids = [tuple(known[i] for i in row) for row in rows]
    pairs = [TokenPair(row[:1], row[1:]) for row in ids]
    tree = TokenTree(pairs)
    hidden = torch.cat([*_parts(network, kernel, tree)])
    nodes = torch.from_numpy(tree.predictions).to(hidden.device)
    return [_logprobs(network, hidden[nodes[tree.spans[row]]]) for row in range(len(rows))]


def _logprobs(network: Network, hidden: torch.Tensor) -> torch.Tensor:
    return network.logits(hidden).cpu().double().log_softmax(-1)


def _apart(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the root of the mean square of what log-probs differ in, in nats."""
    apart = torch.where(first == second, 0.0, first - second)  # both may be minus infinity
    return float(apart.square().mean().sqrt())


def _parts(network: Network, kernel: Kernel, tree: TokenTree) -> Iterator[torch.Tensor]:
    kept: list[KeyValue] = []
    while not tree.is_done:
        packing = Packing(tree.chunk(_PROBE_TOKENS), kernel, kept)
        yield network.hidden_of_tree(packing)
        kept = packing.keep
        if len(kept) < network.num_layers:
            raise UnshareableError(
                f"only {len(kept)} of its {network.num_layers} layers attend by way of "
                "transformers' attention interface"
            )
        tree.advance(packing.chunk)


def _longest(network: Network) -> int | None:
    """Return the longest row that is known to be read as the probe was.

    Where a layer is given no mask, what it does in rows longer than a window is not known.
    """
    masks = network.masks
    limits = [masks.longest, network.scaling.long_from, network.most_tokens]
    if None in masks.used:
        limits += [window for window in network.windows if window >= _TRIED]
    return min((limit for limit in limits if limit is not None), default=None)
