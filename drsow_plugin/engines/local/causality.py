"""Refuses models whose predictions come about by chance, or by what comes after them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from drsow_plugin.engines.local.noise import rounding
from drsow_plugin.errors import ConfigError

_MOST_BY_LENGTH = 1e-2  # of the standard deviation


@torch.inference_mode()
def check_causal(
    name: str, read: Callable[[torch.Tensor], torch.Tensor], ids: torch.Tensor
) -> None:
    """Read a row twice, and once with another second half.

    Args:
        name: Of the model.
        read: From token ids, (1, tokens), to what is made of each, (1, tokens, any size).
        ids: The row.

    Raises:
        ConfigError: What is read differs from time to time, or a token changes what is before it.
    """
    half = ids.shape[1] // 2
    other = torch.cat([ids[:, :half], ids[:, : ids.shape[1] - half]], dim=1)
    first, again, changed = (read(row)[0] for row in (ids, ids, other))
    if (first - again).abs().max() > rounding(first):
        raise ConfigError(
            f"a {name} reads the same tokens differently each time, so it gives no log-prob that "
            "could be given again. If it draws random numbers, fix them in its configuration "
            "(hash_seed); else choose another model."
        )
    if (first[:half] - changed[:half]).abs().max() > rounding(first):
        raise ConfigError(
            f"a {name} is not causal: a token changes the predictions before it, so it gives no "
            "log-prob of a response."
        )


@torch.inference_mode()
def check_length(
    name: str, read: Callable[[torch.Tensor], torch.Tensor], ids: torch.Tensor
) -> None:
    """Read a row, and its first half alone; the arguments are those of :func:`check_causal`.

    Raises:
        ConfigError: What is read differs with the length of the row.
    """
    half = ids.shape[1] // 2
    whole = read(ids)[0]
    moved = (whole[:half] - read(ids[:, :half])[0]).abs().max()
    # Other sizes round in other ways, in deep models by more than the same sizes ever do.
    if moved > torch.maximum(rounding(whole), _MOST_BY_LENGTH * whole.std()):
        raise ConfigError(
            f"a {name} predicts by how many tokens come after, so it gives no log-prob of a "
            "response."
        )
