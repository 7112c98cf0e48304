"""Refuses models whose predictions come about by chance, or by what comes after them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from drsow_plugin.engines.local.noise import tolerance
from drsow_plugin.errors import ConfigError

_MAX_BY_LENGTH = 1e-2  # of the standard deviation


@torch.inference_mode()
def check_causal(
    name: str, forward: Callable[[torch.Tensor], torch.Tensor], ids: torch.Tensor
) -> None:
    """Read a sequence twice, and once with another second half.

    ::

        forward([a, b]) == forward([a, b])
        forward([a, b])[: len(a)] == forward([a, c])[: len(a)]

    Args:
        name: Of the model.
        forward: From token ids, (1, tokens), to what is made of each, (1, tokens, any size).
        ids: The sequence.

    Raises:
        ConfigError: What is read differs from time to time, or a token changes what is before it.
    """
    half = ids.shape[1] // 2
    other = torch.cat([ids[:, :half], ids[:, : ids.shape[1] - half]], dim=1)
    first, again, changed = (forward(row)[0] for row in (ids, ids, other))
    if (first - again).abs().max() > tolerance(first):
        raise ConfigError(
            f"a {name} reads the same tokens differently each time, so it gives no log-prob that "
            "could be given again. If it draws random numbers, fix them in its configuration "
            "(hash_seed); else choose another model."
        )
    if (first[:half] - changed[:half]).abs().max() > tolerance(first):
        raise ConfigError(
            f"a {name} is not causal: a token changes the predictions before it, so it gives no "
            "log-prob of a response."
        )


@torch.inference_mode()
def check_length(
    name: str, forward: Callable[[torch.Tensor], torch.Tensor], ids: torch.Tensor
) -> None:
    """Read a sequence, and its first half alone; the arguments are those of :func:`check_causal`.

    ::

        forward([a, b])[: len(a)] == forward([a])

    Raises:
        ConfigError: What is read differs with the length of the sequence.
    """
    half = ids.shape[1] // 2
    whole = forward(ids)[0]
    moved = (whole[:half] - forward(ids[:, :half])[0]).abs().max()
    # Other sizes round in other ways, in deep models by more than the same sizes ever do.
    if moved > torch.maximum(tolerance(whole), _MAX_BY_LENGTH * whole.std()):
        raise ConfigError(
            f"a {name} predicts by how many tokens come after, so it gives no log-prob of a "
            "response."
        )
