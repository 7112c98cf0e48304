"""A pair that work was begun with, opened again: the same, or not at all."""

from __future__ import annotations

from drsow_plugin.config.in_memory import check_not_in_memory
from drsow_plugin.config.pair import PairConfig, as_options
from drsow_plugin.errors import EngineError
from drsow_plugin.scoring.drsow import DrSoW


def reopened(pair: PairConfig, fingerprint: str | None) -> DrSoW:
    """Open a pair, and check that it is the one that work was begun with.

    Args:
        pair: The configuration.
        fingerprint: That of the pair; ``None`` where no work was begun.

    Raises:
        EngineError: It is another.
    """
    opened = DrSoW.from_config(pair)
    if fingerprint not in (None, opened.fingerprint):
        raise EngineError(
            "The pair that was opened here is not the one that the work was begun with: files of "
            "a model, a tokenizer or a plugin were changed meanwhile, or this machine chooses "
            "another dtype (dtype=… sets it). Nothing is kept. Make the Annotator again."
        )
    return opened


def check_reopens(pair: PairConfig) -> None:
    """Check that another process can open the same pair.

    Raises:
        ConfigError: A model, an engine or a tokenizer is in memory.
    """
    for name, value in as_options(pair).items():
        check_not_in_memory(name, value)
