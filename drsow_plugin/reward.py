"""The reward: the log density ratio of a strong over a weak model (arXiv 2411.02481)."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

from drsow_plugin.config import SIDES, PairConfig, PairOptions, parse_pair
from drsow_plugin.errors import DataError, NonFiniteError
from drsow_plugin.hashing import text_sha256
from drsow_plugin.prompts import as_messages, check_text
from drsow_plugin.records import (
    LogProb,
    Prompt,
    Reduction,
    Reward,
    Scoring,
    SideName,
    TokenPair,
)

if TYPE_CHECKING:
    from drsow_plugin.sides import Side

VERSIONED = ("drsow-plugin", "transformers", "lm-eval", "datasets")

SCORING_VERSION = 1
"""Raised whenever the same input and options would give another reward."""


def reward(strong: LogProb, weak: LogProb, reduction: Reduction = "sum") -> float:
    """Return the reward of a response: strong log-prob minus weak log-prob.

        reward(x, y) = log p_strong(y | x) - log p_weak(y | x)

    Source: arXiv 2411.02481, eq. 2.

    Args:
        strong: Log-prob of the response under the strong model.
        weak: Log-prob of the response under the weak model.
        reduction: ``sum`` for the formula as it stands, in nats; ``mean`` divides each
            log-prob by its own token count first, in nats a token.

    Raises:
        ZeroDivisionError: ``mean`` of a response without tokens.
    """
    if reduction == "mean":
        return strong.total / strong.num_tokens - weak.total / weak.num_tokens
    return strong.total - weak.total


class DrSoW:
    """A reward model made of a strong and a weak causal language model, with no training.

    Tokenizers and templates are read and checked at once; weights are loaded on first use.

    Attributes:
        config: The configuration in force.
    """

    def __init__(self, strong: str, weak: str, **options: Unpack[PairOptions]) -> None:
        """Open a pair of models.

        Args:
            strong: The better-aligned model: a Hub id, a local folder, a ``.gguf`` file or
                ``demo``.
            weak: The less-aligned model.
            **options: ``reduction``, ``end_of_turn``, ``overflow``, ``max_length``,
                ``batch_tokens``, ``batch_size``, and ``strong_…`` / ``weak_…`` (or for both
                sides without the prefix) ``revision``, ``dtype``, ``device``,
                ``device_map``, ``attn_implementation``, ``quantization``, ``adapter``,
                ``adapter_revision``, ``template``, ``tokenizer``, ``trust_remote_code``;
                see :class:`~drsow_plugin.Scoring`, :class:`~drsow_plugin.ModelConfig` and
                :class:`~drsow_plugin.PairConfig`.

        Raises:
            ConfigError: An option or a model is wrong.
        """
        self._open(parse_pair({"strong": strong, "weak": weak, **options}))

    @classmethod
    def from_config(cls, config: PairConfig) -> DrSoW:
        """Open a pair of models from a configuration that is parsed already."""
        drsow = cls.__new__(cls)
        drsow._open(config)
        return drsow

    def _open(self, config: PairConfig) -> None:
        from drsow_plugin.sides import open_sides

        self.config = config
        self._sides: dict[SideName, Side] = open_sides(config)

    @property
    def scoring(self) -> Scoring:
        """The policies in force."""
        return self.config.scoring

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Reward]:
        """Score responses to prompts.

        Args:
            prompts: One for each response; a string is a single user turn. Where the last
                message is the assistant's, the response continues it.
            responses: Scored as given; never stripped, never cut.

        Returns:
            One reward for each row, in order. A row's reward does not depend on the other
            rows beyond rounding.

        Raises:
            DataError: A row is not what it should be, or too long (``overflow="error"``).
            NonFiniteError: A log-prob came out as NaN or infinite; names the row.
        """
        for name, given in (("prompts", prompts), ("responses", responses)):
            if isinstance(given, (str, bytes, Mapping, Set)) or not hasattr(given, "__len__"):
                raise DataError(
                    f"{name} is a list with one entry for each row, got {type(given).__name__}."
                )
        if len(prompts) != len(responses):
            raise DataError(
                f"prompts and responses differ in length: {len(prompts)} prompts, "
                f"{len(responses)} responses. Give one prompt for each response."
            )
        pairs = self._tokenise(prompts, responses)
        usable = [
            row for row in range(len(responses)) if not any(pairs[s][row].reason for s in SIDES)
        ]
        if usable:
            for side in SIDES:  # both are loaded before either scores
                _ = self._sides[side].engine
        logprobs = {side: self._logprobs(side, pairs[side], usable) for side in SIDES}
        strong, weak = logprobs["strong"], logprobs["weak"]
        return [
            self._result(pairs["strong"][row], pairs["weak"][row], strong.get(row), weak.get(row))
            for row in range(len(responses))
        ]

    def _tokenise(
        self, prompts: Sequence[Prompt], responses: Sequence[str]
    ) -> dict[SideName, list[TokenPair]]:
        pairs: dict[SideName, list[TokenPair]] = {side: [] for side in SIDES}
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            if not isinstance(response, str):
                raise DataError(
                    f"row {row}: a response is a string, got {type(response).__name__}."
                )
            check_text(response, f"row {row}, response")
            messages = as_messages(prompt, f"row {row}")
            for side in SIDES:
                pairs[side].append(self._sides[side].tokenise(messages, response, f"row {row}"))
        return pairs

    def _logprobs(
        self, side: SideName, pairs: Sequence[TokenPair], usable: Sequence[int]
    ) -> dict[int, LogProb]:
        if not usable:
            return {}
        try:
            scored = self._sides[side].engine.logprobs([pairs[row] for row in usable], side)
        except NonFiniteError as error:
            row = usable[error.index]
            raise NonFiniteError(
                f"row {row}: under the {side} model {error}. The weights or the dtype overflow; "
                f"try {side}_dtype=float32, and check the checkpoint.",
                row,
            ) from error
        return dict(zip(usable, scored, strict=True))

    def _result(
        self,
        strong_pair: TokenPair,
        weak_pair: TokenPair,
        strong: LogProb | None,
        weak: LogProb | None,
    ) -> Reward:
        named = (("strong", strong_pair), ("weak", weak_pair))
        reasons = [f"{side}: {pair.reason}" for side, pair in named if pair.reason]
        value = None
        if strong is not None and weak is not None:
            if self.scoring.reduction == "mean" and not (strong.num_tokens and weak.num_tokens):
                reasons.append("the response has no tokens, so its mean log-prob is not defined")
            else:
                value = reward(strong, weak, self.scoring.reduction)
        return Reward(
            reward=value,
            strong_logprob=strong.total if strong else None,
            weak_logprob=weak.total if weak else None,
            strong_tokens=len(strong_pair.response_ids),
            weak_tokens=len(weak_pair.response_ids),
            strong_truncated=strong_pair.truncated,
            weak_truncated=weak_pair.truncated,
            reason="; ".join(reasons) or None,
            notes=tuple(f"{side}: {note}" for side, pair in named for note in pair.notes),
            scoring=self.scoring,
        )

    @property
    def devices(self) -> dict[SideName, str]:
        """Where each side's weights go."""
        return {name: side.device for name, side in self._sides.items()}

    def describe(self) -> dict[str, Any]:
        """Return all that identifies the rewards, as plain values for a results file.

        Loads no weights. Local weights are hashed, which takes seconds a gigabyte once.
        """
        import torch

        return {
            "strong": self._sides["strong"].describe(),
            "weak": self._sides["weak"].describe(),
            "scoring": asdict(self.scoring),
            "scoring_version": SCORING_VERSION,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,  # unlike the metadata it names the build
                **{name: metadata.version(name) for name in VERSIONED},
            },
        }

    def describe_template(self) -> str:
        """Return the source of the strong model's chat template; empty for a plain LM."""
        return self._sides["strong"].template or ""

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that changes a reward: weights, templates and policies."""
        description = self.describe()
        del description["versions"]
        return text_sha256(json.dumps(description, sort_keys=True))
