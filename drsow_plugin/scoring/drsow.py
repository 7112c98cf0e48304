"""The reward: the log density ratio of a strong over a weak model (arXiv 2411.02481)."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any, get_args

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

from drsow_plugin.config.keywords import PairOptions
from drsow_plugin.config.pair import PairConfig, as_options, parse_pair
from drsow_plugin.config.parse import call_text
from drsow_plugin.errors import (
    ConfigError,
    unknown_name,
)
from drsow_plugin.hashing import text_sha256
from drsow_plugin.models.devices import torch_version
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.models.pool import ModelPool
from drsow_plugin.progress import token_progress
from drsow_plugin.records import (
    Batching,
    OnError,
    Prompt,
    Reward,
    Scoring,
    SideName,
)
from drsow_plugin.routing.opening import open_routing
from drsow_plugin.scoring.pair import Pair
from drsow_plugin.scoring.reward import close_calls, refined
from drsow_plugin.scoring.reward_function import RewardFunction
from drsow_plugin.scoring.rows import Reader, Row

if TYPE_CHECKING:
    from drsow_plugin.config.in_memory import ModelObject
    from drsow_plugin.routing.routing import Routing

VERSIONED = ("drsow-plugin", "transformers", "lm-eval", "datasets")

SCORING_VERSION = 2
"""Raised whenever the same input and options would give another reward."""


class DrSoW:
    """A reward model made of a strong and a weak causal language model, with no training.

    Tokenizers and templates are read and checked at once; weights are loaded on first use.

    Attributes:
        config: The configuration in force.
    """

    def __init__(
        self,
        strong: str | ModelObject,
        weak: str | ModelObject,
        **options: Unpack[PairOptions],
    ) -> None:
        """Open a pair of models.

        Args:
            strong: The better-aligned model: a Hub id, a local folder, a ``.gguf`` file,
                ``demo``, or, together with ``strong_tokenizer``, an engine or a causal language
                model of transformers, which is used as it is and left so.
            weak: The less-aligned model.
            **options: Those of a pair in ``docs/options.md``: how responses are scored, what
                holds for each model (with ``strong_`` or ``weak_`` before it for one of them),
                and how prompts are routed to domains.

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
        self.config = config
        pool = ModelPool()
        self._pair = Pair.open(config, pool)
        self._routing: Routing | None = None
        if config.routing.is_on:
            sides = {"strong": config.strong, "weak": config.weak}
            batching = Batching(config.batch_tokens, config.batch_size)
            self._routing = open_routing(config.routing, sides, pool, batching)
        self._pair.check_sides(self._routing)
        self._reader = Reader(
            self._pair.models, self._routing, is_one_model=self._pair.is_one_model
        )
        self._exact = self._pair.in_float32(pool) if config.scoring.refine else None

    def __repr__(self) -> str:
        return call_text("DrSoW", as_options(self.config))

    @property
    def scoring(self) -> Scoring:
        """The policies in force."""
        return self.config.scoring

    def score(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        *,
        domains: Sequence[str | None] | None = None,
        on_error: OnError = "raise",
        token_logprobs: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> list[Reward]:
        """Score responses to prompts.

        Args:
            prompts: One for each response; a string is a single user turn. Where the last
                message is the assistant's, the response continues it.
            responses: Scored as given; never stripped, never cut.
            domains: For each prompt the domain that the data names for it, or ``None``: what
                the router ``column`` goes by. Only for a pair with ``router=``.
            on_error: ``raise`` stops at the first row that cannot be scored; ``null`` gives
                such rows no reward and a reason.
            token_logprobs: Whether to return the log-prob of each response token too.
            progress: Called with the tokens just dealt with and the tokens of this call, of
                both sides and prompts included; ``None`` shows a bar on stderr when scoring
                takes a while.

        Returns:
            One reward for each row, in order. A row's reward does not depend on the other
            rows beyond rounding.

        Raises:
            DataError: A row is not what it should be, or too long (``overflow="error"``).
            NonFiniteError: A log-prob came out as NaN or infinite; names the row.
            EngineError: A model failed, or its files were changed since the pair was opened.
            PluginError: The router failed.
        """
        if on_error not in get_args(OnError):
            raise ConfigError(unknown_name("value of on_error", on_error, get_args(OnError)))
        rows = self.read(prompts, responses, domains=domains, on_error=on_error)
        return self.score_rows(
            rows, on_error=on_error, token_logprobs=token_logprobs, progress=progress
        )

    def read(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        *,
        domains: Sequence[str | None] | None = None,
        on_error: OnError = "raise",
    ) -> list[Row]:
        """Return rows as both models read them, for :meth:`score_rows`; see :meth:`score`.

        The length of a row is its tokens, of both sides and prompts included.
        """
        return self._reader.read(prompts, responses, domains, on_error)

    def read_unrouted(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Row]:
        """Return rows as both models read them without a domain; none of them asks a model."""
        return self._reader.read_unrouted(prompts, responses)

    def score_rows(
        self,
        rows: Sequence[Row],
        *,
        on_error: OnError = "raise",
        token_logprobs: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> list[Reward]:
        """Score rows that :meth:`read` returned; see :meth:`score`."""
        usable = [index for index, row in enumerate(rows) if row.is_usable]
        options = {"token_logprobs": token_logprobs, "strict": on_error == "raise"}
        with token_progress(progress, sum(len(rows[index]) for index in usable)) as advance:
            rewards = self._pair.score(rows, usable, advance, **options)
        if self._exact is not None:
            close = close_calls(rows, rewards, self.scoring.refine)
            again = self._exact.score(rows, close, lambda _tokens: None, **options)
            for index in close:
                rewards[index] = refined(rewards[index], again[index])
        self.check_files()
        return rewards

    def as_reward_function(self, name: str = "drsow_reward") -> RewardFunction:
        """Return the pair as a reward function for TRL's trainers.

        Args:
            name: What the trainer logs it by.
        """
        return RewardFunction(self._score_quietly, name)

    def _score_quietly(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Reward]:
        return self.score(
            prompts, responses, on_error="null", progress=lambda _tokens, _total: None
        )

    def check_files(self) -> None:
        """Check that the models' files are those that were there when the pair was opened.

        :meth:`score` does so before it returns. Sizes and times of the files decide, and
        hashes where these cannot.

        Raises:
            EngineError: A file was changed, removed or added.
        """
        models = [*self.models.values(), *(self._exact.models.values() if self._exact else ())]
        if self._router_model is not None:
            models.append(self._router_model)
        for model in models:
            model.check_files()

    @property
    def _router_model(self) -> LanguageModel | None:
        """The router's model, where it is none of the pair's."""
        own = None if self._routing is None else self._routing.own_model
        return None if own is None else own.model

    @property
    def models(self) -> dict[SideName, LanguageModel]:
        """Both models: ``strong`` and ``weak``."""
        return self._pair.models

    @property
    def uses_known_domains(self) -> bool:
        """Whether a reward depends on the ``domains`` given with a prompt."""
        return self._routing is not None and self._routing.uses_known

    @property
    def devices(self) -> dict[SideName, str]:
        """Where each side's weights go."""
        return {side: model.device for side, model in self.models.items()}

    def describe(self) -> dict[str, Any]:
        """Return all that identifies the rewards, as plain values for a results file.

        Loads no weights. Local weights are hashed, which takes seconds a gigabyte once.
        """
        routing = None if self._routing is None else self._routing.describe()
        if routing is not None:
            own = self._router_model
            named = self.config.routing.router_model
            routing["router_model"] = own.identity.describe() if own else named
        return {
            **({"routing": routing} if routing else {}),
            "strong": self.models["strong"].identity.describe(),
            "weak": self.models["weak"].identity.describe(),
            "scoring": asdict(self.scoring),
            "scoring_version": SCORING_VERSION,
            "versions": {
                "python": platform.python_version(),
                "torch": torch_version() if self.config.computes_here else None,
                **{name: metadata.version(name) for name in VERSIONED},
            },
        }

    def describe_template(self) -> str:
        """Return the source of the strong model's chat template; empty without one."""
        return self.models["strong"].identity.template or ""

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that changes a reward: weights, templates, policies, routing.

        Local files count by what is in them, wherever they are; a Hub model by its commit.
        """
        identity: dict[str, Any] = {
            **{str(s): model.identity.fingerprint() for s, model in self.models.items()},
            "scoring": asdict(self.scoring),
            "scoring_version": SCORING_VERSION,
        }
        if self._routing is not None:
            own = self._router_model
            named = self.config.routing.router_model
            identity["routing"] = self._routing.fingerprint()
            identity["router_model"] = own.identity.fingerprint() if own else named
        return text_sha256(json.dumps(identity, sort_keys=True))

    @property
    def pinned_config(self) -> PairConfig:
        """The configuration with each Hub model's revision replaced by the commit in use."""
        pinned = {side: model.identity.pinned_config for side, model in self.models.items()}
        routing = self.config.routing
        if self._router_model is not None:
            routing = replace(routing, router_model=self._router_model.identity.pinned_config)
        return replace(self.config, strong=pinned["strong"], weak=pinned["weak"], routing=routing)
