"""The two models of a pair, opened as they are or in float32, and what both make of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.config.pair import PairConfig
from drsow_plugin.engines.local.tree import shared_trees
from drsow_plugin.errors import ConfigError, EngineError, NonFiniteError
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.models.pool import ModelPool
from drsow_plugin.records import NOT_FINITE, SIDES, Batching, LogProb, Problem, Reward, SideName
from drsow_plugin.scoring.reward import to_reward
from drsow_plugin.scoring.rows import Row

if TYPE_CHECKING:
    from drsow_plugin.routing.routing import Routing

_EXACT = ("float32", "float64")


@dataclass(frozen=True)
class Pair:
    """A strong and a weak model, opened.

    Attributes:
        config: What was asked for.
        models: Both, by side.
    """

    config: PairConfig
    models: dict[SideName, LanguageModel]

    @classmethod
    def open(cls, config: PairConfig, pool: ModelPool) -> Pair:
        """Open both models; weights that both use will be loaded once.

        Raises:
            ConfigError: One is wrong.
        """
        return cls(config, {s: _open(s, getattr(config, s), config, pool) for s in SIDES})

    @cached_property
    def is_one_model(self) -> bool:
        """Whether both are the same model with the same options."""
        return self.models["strong"].identity.is_same_as(self.models["weak"].identity)

    def check_sides(self, routing: Routing | None) -> None:
        """Check that something tells the sides apart: the models, or what domains tell them.

        Raises:
            ConfigError: Nothing does.
        """
        if self.is_one_model and not (routing and routing.tells_apart):
            advice = "Give another weak model"
            if routing:
                advice += ", or a domain that tells it something else: with a weak_instruction"
            raise ConfigError(
                f"strong={self.config.strong.source!r} and weak={self.config.weak.source!r} are "
                f"the same model with the same options, so every reward would be 0. {advice}."
            )

    def in_float32(self, pool: ModelPool) -> Pair:
        """Return the pair in float32, to score again what is too close to call.

        Raises:
            ConfigError: It is in float32 already, or one is quantized or an engine.
        """
        refine = f"refine={self.config.scoring.refine:g}"
        inexact = [s for s, model in self.models.items() if model.identity.dtype not in _EXACT]
        if not inexact:
            raise ConfigError(
                f"{refine} has no effect: both models are in float32 or better already. Leave it "
                "out, or set dtype=bfloat16 or dtype=float16."
            )
        exact = dict(self.models)
        for side, model in self.models.items():
            config, dtype = model.config, model.identity.dtype
            if config.quantization is not None:
                raise ConfigError(
                    f"{refine} scores in float32, and {side}_quantization rounds the weights "
                    "before that. Leave one of them out."
                )
            if config.given.engine is not None:
                raise ConfigError(
                    f"{refine} scores in float32, and {side} is an engine, which computes as it "
                    "does. Leave refine out."
                )
            if config.server:
                raise ConfigError(
                    f"{refine} scores in float32, and {side} is on a server, which computes as it "
                    "does. Leave refine out."
                )
            if config.given.model is not None and side in inexact:
                raise ConfigError(
                    f"{refine} scores in float32, and {side} is a model in memory in {dtype}. "
                    "Load it in float32, or give its folder."
                )
            if side in inexact:
                config = replace(config, dtype="float32")
                exact[side] = _open(f"{side}_float32", config, self.config, pool)
        return Pair(self.config, exact)

    def score(
        self,
        rows: Sequence[Row],
        indices: Sequence[int],
        advance: Callable[[int], object],
        *,
        token_logprobs: bool,
        strict: bool,
    ) -> list[Reward]:
        """Return the rewards of all rows, of which only some are scored.

        Args:
            rows: The rows.
            indices: Those to score; the others have a problem.
            advance: Called with the number of tokens, prompts included, just dealt with.
            token_logprobs: Whether to keep the log-prob of each token.
            strict: Whether to raise for a row that a model cannot score.

        Raises:
            NonFiniteError: A log-prob came out as NaN or infinite, and ``strict``.
            EngineError: A model failed, or there is not enough memory for a row and ``strict``.
        """
        if indices:
            for model in self.models.values():  # what cannot be loaded shows before either scores
                model.load()
        scored: dict[SideName, dict[int, LogProb]] = {}
        # A model that is in memory goes first: the other may have to take its place.
        with shared_trees():  # where both read rows alike
            for side in sorted(SIDES, key=lambda side: not self.models[side].is_loaded):
                scored[side] = found = {}
                pairs = [rows[index].pairs[side] for index in indices]
                if not pairs:
                    continue
                with closing(self.models[side].iter_logprobs(pairs)) as logprobs:
                    for number, logprob in logprobs:
                        if strict and logprob.problem is not None:
                            raise self._error(logprob.problem, indices[number], side)
                        found[indices[number]] = logprob
                        advance(len(pairs[number]))
        strong, weak = scored["strong"], scored["weak"]
        return [
            to_reward(
                *(row, strong.get(index), weak.get(index), self.config.scoring),
                token_logprobs=token_logprobs,
            )
            for index, row in enumerate(rows)
        ]

    def _error(self, problem: Problem, index: int, side: SideName) -> EngineError:
        if problem.kind != NOT_FINITE:
            return EngineError(f"row {index}: {replace(problem, model=side)}")
        config = self.models[side].config
        advice = "Its server gave it." if config.server else "Its engine gave it."
        if config.computes_here:
            advice = (
                f"The weights or the dtype overflow; try {side}_dtype=float32, and check the "
                "checkpoint."
            )
        text = f"row {index}: under the {side} model {problem.detail}. {advice}"
        return NonFiniteError(text, index)


def _open(name: str, config: ModelConfig, pair: PairConfig, pool: ModelPool) -> LanguageModel:
    batching = Batching(pair.batch_tokens, pair.batch_size)
    return LanguageModel.from_config(name, config, pool, pair.scoring, batching)
