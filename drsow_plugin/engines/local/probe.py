"""Finds out, by trying, whether a model's sequences may share what they have in common.

For each sequence of a probe, up to the rounding of the model's own arithmetic::

    packed(sequences)[n] == alone(sequences[n]) == packed(neighbours)[n]
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from drsow_plugin.engines.local import kernels
from drsow_plugin.engines.local.attention import Kernel, KeyValue, Packing
from drsow_plugin.engines.local.masks import UnshareableError
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.noise import perturbed
from drsow_plugin.engines.local.tree import Cursor, TokenTree
from drsow_plugin.records import TokenPair

logger = logging.getLogger(__name__)

# Sequences in the order of the tree, and others of the same lengths that share as much; the numbers
# stand for the model's ordinary token ids.
_A, _B = (7, 4, 9, 2, 8, 3), (5, 6, 1)
_END = tuple(range(11, 21))
_PROBE = [(*_B, *_A), (*_A, *_END), (*_A, 21, 11, 22, 13, 23, 15), (*_A[:3], *_B, 24, 25)]
_NEIGHBOURS = [(*_B, *_A[::-1]), (*_A, *_END[:0:-1], 12), *_PROBE[2:]]
_MAX_ID = max(map(max, _PROBE))
_SAME = (2, 3)  # the sequences that are in both
_TRIED = max(map(len, _PROBE)) - 1  # tokens of the longest sequence
_PROBE_TOKENS = 10  # so that the probe takes several chunks, which cut sequences
# In units of what one rounding of the model's input comes to …
_MAX_DIFFERENCE, _MAX_INFLUENCE = 4.0, 0.5
_PATTERN = 13
# … or, where that is more: in nats a token, of which 500 add up to no more than is promised, and
# in standard deviations, since kernels round otherwise with other shapes, by some tokens a lot.
_MIN_INFLUENCE = 5e-4 / 500**0.5
_MIN_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Sharing:
    """How sequences share prefixes.

    Attributes:
        kernel: What attends.
        max_length: Maximum tokens read of a sequence that may share; ``None`` for any number.
    """

    kernel: Kernel
    max_length: int | None


def find_sharing(network: Network) -> Sharing | None:
    """Score a few sequences packed into a tree and one by one, and compare.

    Packed sequences must come out as they do alone, whatever their neighbours are. Where they do
    not (a recurrent layer, positions by distance in the packed tree, an attention that is not
    handed over to transformers' attention interface), one line on the log says so.

    Returns:
        How sequences share prefixes, or ``None`` if they cannot.
    """
    candidates = [kernels.by_run]
    if network.device.type == "cuda" and network.dtype in (torch.float16, torch.bfloat16):
        candidates.insert(0, kernels.by_varlen)
    problem = "its head cannot be applied apart from its backbone"
    for kernel in candidates if network.splits else ():
        try:
            problem = _difference(network, kernel)
        except UnshareableError as error:
            problem = str(error)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a model's own code, run in a way it was not written for
            problem = f"it fails on packed rows ({type(error).__name__}: {error})"
        if not problem:
            return Sharing(kernel, _max_length(network))
    logger.warning(
        "%s: rows cannot share what they have in common, and are scored one by one: %s.",
        network.name,
        problem,
    )
    return None


@torch.inference_mode()
def _difference(network: Network, kernel: Kernel) -> str:
    """Return in what packed sequences differ from single ones; empty if they do not."""
    if not network.takes_positions:
        return "it is not told the positions of its tokens"
    max_length = network.masks.max_length
    if max_length is not None and max_length < _TRIED:
        return "its mask is neither causal nor a window"
    packed = _packed_logprobs(network, kernel, _PROBE)
    others = _packed_logprobs(network, kernel, _NEIGHBOURS)
    ordinary = network.ordinary_ids(_MAX_ID + 1)
    for number, sequence in enumerate(_PROBE):
        ids = ordinary[:, sequence[:-1]]
        alone = _logprobs(network, network.hidden(ids)[0])
        with perturbed(network.embeddings, _PATTERN):
            noise = _rms(_logprobs(network, network.hidden(ids)[0]), alone)
        influence = _rms(packed[number], others[number])
        if number in _SAME and not influence <= max(_MAX_INFLUENCE * noise, _MIN_INFLUENCE):
            return "a row changes with its neighbours"
        minimum = _MIN_DIFFERENCE * float(alone[alone.isfinite()].std())
        if not _rms(packed[number], alone) <= max(_MAX_DIFFERENCE * noise, minimum):
            return "a row comes out differently when it shares a prefix"
    return ""


def _packed_logprobs(
    network: Network, kernel: Kernel, sequences: Sequence[tuple[int, ...]]
) -> list[torch.Tensor]:
    """Return the log-probs in each sequence, (tokens but the last, vocabulary), in nats."""
    ordinary = network.ordinary_ids(_MAX_ID + 1)[0].tolist()
    ids = [tuple(ordinary[number] for number in sequence) for sequence in sequences]
    tree = TokenTree([TokenPair(each[:1], each[1:]) for each in ids])
    hidden = torch.cat([*_hidden_of_chunks(network, kernel, tree)])
    nodes = torch.from_numpy(tree.predicting_nodes).to(hidden.device)
    return [_logprobs(network, hidden[nodes[tree.slices[i]]]) for i in range(len(sequences))]


def _logprobs(network: Network, hidden: torch.Tensor) -> torch.Tensor:
    return network.logits(hidden).cpu().double().log_softmax(-1)


def _rms(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the root of the mean square of what log-probs differ in, in nats."""
    difference = torch.where(first == second, 0.0, first - second)  # both may be minus infinity
    return float(difference.square().mean().sqrt())


def _hidden_of_chunks(network: Network, kernel: Kernel, tree: TokenTree) -> Iterator[torch.Tensor]:
    cursor: Cursor | None = tree.start
    cache: Sequence[KeyValue] = ()
    while cursor is not None:
        packing = Packing(tree.chunk(cursor, _PROBE_TOKENS), kernel, cache)
        yield network.hidden_of_chunk(packing)
        cursor, cache = packing.chunk.next, packing.next_cache
        if len(cache) < network.num_layers:
            raise UnshareableError(
                f"only {len(cache)} of its {network.num_layers} layers attend by way of "
                "transformers' attention interface"
            )


def _max_length(network: Network) -> int | None:
    """Return up to which length, in tokens, sequences are known to be read as the probe was.

    Where a layer is given no mask, what it does in sequences longer than a window is not known.
    """
    limits = [network.masks.max_length, network.scaling.max_short, network.max_tokens]
    if None in network.masks.used:
        limits += [window for window in network.windows if window >= _TRIED]
    return min((limit for limit in limits if limit is not None), default=None)
