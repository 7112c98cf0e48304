"""Resamples of rows that have a prompt of their own each."""

from __future__ import annotations

from drsow_plugin.bootstrap import PromptBootstrap


def own_prompts(rows: int, resamples: int = 2000, seed: int = 0) -> PromptBootstrap:
    return PromptBootstrap([str(row) for row in range(rows)], resamples, seed)
