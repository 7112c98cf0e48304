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
from drsow_plugin.engines.local.attention import Kernel, KernelError, KeyValue, Packing
from drsow_plugin.engines.local.budget import unless_out_of_memory
from drsow_plugin.engines.local.exactness import full_precision
from drsow_plugin.engines.local.failures import is_out_of_memory, one_line
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
_MIN_NOISE = 1e-30  # nats; only what is logged is divided by it


@dataclass(frozen=True)
class Sharing:
    """How sequences share prefixes.

    Attributes:
        kernel: What attends.
        max_length: Maximum tokens read of a sequence that may share; ``None`` for any number.
        next_kernels: What to try where the kernel refuses a layer after all, best first.
    """

    kernel: Kernel
    max_length: int | None
    next_kernels: tuple[Kernel, ...] = ()


@full_precision()
def find_sharing(network: Network) -> Sharing | None:
    """Score a few sequences packed into a tree and one by one, and compare.

    Packed sequences must come out as they do alone, whatever their neighbours are. Where they do
    not (a recurrent layer, positions by distance in the packed tree, an attention that is not
    handed over to transformers' attention interface), one line on the log says so.

    Returns:
        How sequences share prefixes, or ``None`` if they cannot.
    """
    sharing, problem = _first_usable(network, kernels.kernels_for(network.device))
    if sharing is None:
        logger.warning(
            "%s: rows cannot share what they have in common, and are scored one by one: %s.",
            network.name,
            problem,
        )
    else:
        logger.info(
            "%s: rows share what they have in common; attention kernel: %s%s.",
            network.name,
            _name(sharing.kernel),
            f" ({problem})" if problem else "",
        )
    return sharing


def next_sharing(network: Network, sharing: Sharing, error: UnshareableError) -> Sharing | None:
    """Go on with the next kernel, tried as the first was, after an error while scoring.

    Args:
        network: The model.
        sharing: How its sequences have shared prefixes so far.
        error: Where it is no :class:`~drsow_plugin.engines.local.attention.KernelError`, no
            other kernel will help.

    Returns:
        How sequences share prefixes from here on, or ``None`` if they cannot.
    """
    following, reasons = None, [str(error)]
    if isinstance(error, KernelError) and sharing.next_kernels:
        found = unless_out_of_memory(_first_usable, network, sharing.next_kernels)
        following, problem = found or (None, "memory runs out")
        reasons = [f"not {_name(sharing.kernel)}: {error}", *filter(None, [problem])]
    outcome = "rows are scored one by one"
    if following is not None:
        outcome = f"the attention kernel is {_name(following.kernel)}"
    logger.warning("%s: from here on %s: %s.", network.name, outcome, "; ".join(reasons))
    return following


def _first_usable(network: Network, candidates: Sequence[Kernel]) -> tuple[Sharing | None, str]:
    """Return how sequences share prefixes by the first kernel that can, and why not by others."""
    if not network.splits:
        return None, "its head cannot be applied apart from its backbone"
    problems: list[str] = []
    is_only = len(kernels.kernels_for(network.device)) == 1
    for number, kernel in enumerate(candidates):
        try:
            problem = _difference(network, kernel)
        except KernelError as error:
            problem = str(error)
        except UnshareableError as error:  # whatever the kernel
            return None, str(error)
        except Exception as error:  # a model's own code, run in a way it was not written for
            if is_out_of_memory(error):
                raise
            problem = f"it fails on packed rows ({one_line(error)})"
        if not problem:
            sharing = Sharing(kernel, _max_length(network), tuple(candidates[number + 1 :]))
            return sharing, "; ".join(problems)
        problems.append(problem if is_only else f"not {_name(kernel)}: {problem}")
    return None, "; ".join(problems)


def _name(kernel: Kernel) -> str:
    return kernel.__name__.removeprefix("by_")


@torch.inference_mode()
def _difference(network: Network, kernel: Kernel) -> str:
    """Return in what packed sequences differ from single ones; empty if they do not.

    Raises:
        UnshareableError: The model cannot share, whatever the kernel.
        KernelError: The kernel cannot attend as the model asks.
    """
    if not network.takes_positions:
        raise UnshareableError("it is not told the positions of its tokens")
    max_length = network.masks.max_length
    if max_length is not None and max_length < _TRIED:
        raise UnshareableError("its mask is neither causal nor a window")
    packed = _packed_logprobs(network, kernel, _PROBE)
    others = _packed_logprobs(network, kernel, _NEIGHBOURS)
    ordinary = network.ordinary_ids(_MAX_ID + 1)
    problem, ratios = "", [0.0, 0.0]
    for number, sequence in enumerate(_PROBE):
        ids = ordinary[:, sequence[:-1]]
        alone = _logprobs(network, network.hidden(ids)[0])
        with perturbed(network.embeddings, _PATTERN):
            noise = _rms(_logprobs(network, network.hidden(ids)[0]), alone)
        influence = _rms(packed[number], others[number]) if number in _SAME else 0.0
        difference = _rms(packed[number], alone)
        minimum = _MIN_DIFFERENCE * float(alone[alone.isfinite()].std())
        if not influence <= max(_MAX_INFLUENCE * noise, _MIN_INFLUENCE):
            problem = problem or "a row changes with its neighbours"
        if not difference <= max(_MAX_DIFFERENCE * noise, minimum):
            problem = problem or "a row comes out differently when it shares a prefix"
        here = (value / max(noise, _MIN_NOISE) for value in (difference, influence))
        ratios = [*map(max, ratios, here)]
    logger.debug(
        "%s, %s: rows differ by up to %.3g and influence each other by up to %.3g times what one "
        "rounding of the input comes to.",
        network.name,
        _name(kernel),
        *ratios,
    )
    return problem


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
