"""One language model, opened: rows in, log-probs out, whatever engine computes them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

from drsow_plugin.config.keywords import ModelOptions
from drsow_plugin.config.model import ModelConfig, date_of
from drsow_plugin.config.options import given_options
from drsow_plugin.config.pair import parse_single
from drsow_plugin.config.parse import call_text
from drsow_plugin.engines import LazyEngine
from drsow_plugin.engines.results import logprobs_of
from drsow_plugin.errors import ConfigError, DataError, DrSoWError
from drsow_plugin.models.identity import ModelIdentity, tokenizer_sha256
from drsow_plugin.models.opening import open_engine, read_model
from drsow_plugin.models.pool import ModelPool
from drsow_plugin.models.row import ModelRow
from drsow_plugin.models.sources import read_template
from drsow_plugin.prompts import check_lists
from drsow_plugin.records import Batching, LogProb, Problem, Prompt, Scoring, TokenPair
from drsow_plugin.tokens.overflow import fitted
from drsow_plugin.tokens.renderer import Renderer

if TYPE_CHECKING:
    from drsow_plugin.config.in_memory import ModelObject


class LanguageModel:
    """A causal language model with its tokenizer, chat template, length limit and engine.

    Tokenizer and template are read and checked at once; weights are loaded on first use.

    Attributes:
        name: What it is called in errors, such as ``strong``.
        tokenizer: Its tokenizer.
        renderer: Turns conversations into token ids.
        identity: All that decides its log-probs.
        engine: What computes them.
    """

    def __init__(self, source: str | ModelObject, **options: Unpack[ModelOptions]) -> None:
        """Open a model.

        Args:
            source: A Hub id, a local folder, a ``.gguf`` file, ``demo``, a model of transformers,
                or an engine.
            **options: Those of each model in ``docs/options.md``, without a prefix, and
                ``end_of_turn``, ``overflow``, ``max_length``, ``control_tokens``,
                ``batch_tokens`` and ``batch_size``.

        Raises:
            ConfigError: An option is wrong, or the model, its tokenizer or its template is not
                there or cannot be used.
        """
        config, scoring, batching = parse_single(source, options)
        self._open("model", config, ModelPool(), scoring, batching)

    @classmethod
    def from_config(
        cls, name: str, config: ModelConfig, pool: ModelPool, scoring: Scoring, batching: Batching
    ) -> LanguageModel:
        """Open a model from a configuration that is parsed already.

        Args:
            name: Such as ``strong``, ``weak`` or ``router``.
            config: What was asked for.
            pool: What other models have loaded already.
            scoring: The policies on what is scored.
            batching: How the work is batched.

        Raises:
            ConfigError: The model, its tokenizer or its template is not there or cannot be used.
        """
        model = cls.__new__(cls)
        model._open(name, config, pool, scoring, batching)
        return model

    def _open(
        self, name: str, config: ModelConfig, pool: ModelPool, scoring: Scoring, batching: Batching
    ) -> None:
        """Read tokenizer, template and configuration, and check them; no weights."""
        self.name = name
        found = read_model(name, config, pool)
        self.tokenizer = found.tokenizer
        template = read_template(name, config, found.tokenizer)
        try:
            self.renderer = Renderer(
                found.tokenizer,
                template,
                end_of_turn=scoring.end_of_turn,
                control_tokens=scoring.control_tokens,
                template_args=json.loads(config.template_args or "{}"),
                template_date=date_of(config.template_date),
            )
        except ConfigError as error:
            raise ConfigError(f"{name}={config.source!r}: {error}") from error
        self.identity = ModelIdentity(
            config=config,
            source=found.source,
            contents=found.contents,
            architecture=found.architecture,
            dtype=found.dtype,
            vocab_size=found.vocab_size,
            max_length=_length_limit(name, config, found.max_length, scoring.max_length),
            template=template,
            template_date=self.renderer.template_date,
            tokenizer_sha256=tokenizer_sha256(found.tokenizer),
            bos_token_id=found.tokenizer.bos_token_id,
            end_of_turn_ids=tuple(self.renderer.end_of_turn_ids),
            scoring=scoring,
        )
        self.engine = open_engine(name, self.identity, found, pool, batching)

    def __repr__(self) -> str:
        return call_text(
            "LanguageModel", {"source": self.config.source, **given_options(self.config)}
        )

    def tokenize(self, rows: Sequence[ModelRow]) -> list[TokenPair | DataError]:
        """Return rows as token ids that fit the model.

        Args:
            rows: Prompts and responses.

        Returns:
            For each row its tokens, with the reason why the model cannot score them where
            ``overflow`` is not ``error``; or the error: it is too long, the template or the
            tokenizer refuses it, or its tokens are not the model's.
        """
        named = [(row.messages, row.response, f"{row.where}, {self.name} model") for row in rows]
        try:
            encoded = self.renderer.encode_all(named)
        except (DrSoWError, MemoryError):
            raise
        except Exception as error:  # a template is a program, and a tokenizer may be anyone's
            if len(rows) > 1:
                return [pair for row in rows for pair in self.tokenize([row])]
            said = f"{type(error).__name__}: {str(error).strip() or 'nothing more is known'}"
            return [
                DataError(
                    f"{rows[0].where}: the {self.name} model's template or tokenizer failed: "
                    f"{said.splitlines()[0]}. Fix or remove the row, or give another template."
                )
            ]
        return [
            pair if isinstance(pair, DataError) else self._fitted(pair, row.where)
            for pair, row in zip(encoded, rows, strict=True)
        ]

    def _fitted(self, pair: TokenPair, where: str) -> TokenPair | DataError:
        identity = self.identity
        unknown = max((*pair.prompt_ids, *pair.response_ids), default=0)
        if unknown >= identity.vocab_size:
            token = self.tokenizer.convert_ids_to_tokens(unknown)
            return DataError(
                f"{where}: the token {token!r} ({unknown}) is outside the {self.name} model's "
                f"vocabulary of {identity.vocab_size}. The tokenizer does not belong to the model."
            )
        if identity.max_length is None or len(pair) <= identity.max_length:
            return pair
        start = pair.prompt_ids[:1] if pair.prompt_ids[0] == identity.bos_token_id else ()
        where = f"{where}, {self.name} model"
        return fitted(pair, identity.max_length, identity.scoring, where, start)

    def iter_logprobs(
        self, pairs: Sequence[TokenPair]
    ) -> Generator[tuple[int, LogProb], None, None]:
        """Return an iterator over each pair's index and log-prob, as soon as it is known.

        Args:
            pairs: What :meth:`tokenize` returned, without a problem.

        Raises:
            EngineError: The engine failed; what could not be had of a single pair is in its
                log-prob instead.
        """
        return logprobs_of(self.engine, pairs, f"The engine of the {self.name} model")

    def logprobs(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        advance: Callable[[int], object] = lambda _tokens: None,
    ) -> list[LogProb]:
        """Return the log-prob of each response given its prompt.

        Args:
            prompts: One for each response; a string is a single user turn.
            responses: Scored as given.
            advance: Called with the number of tokens, prompts included, just dealt with.

        Returns:
            Sums over the response tokens, in nats, one a row; a row that cannot be scored has a
            problem instead.

        Raises:
            DataError: There is not one prompt for each response.
            EngineError: The engine failed.
        """
        check_lists(prompts, responses)
        logprobs: dict[int, LogProb] = {}
        rows: dict[int, ModelRow] = {}
        for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            try:
                rows[index] = ModelRow.read(prompt, response, f"row {index}")
            except DataError as error:
                logprobs[index] = _without(Problem.of(error, f"row {index}"))
        usable: dict[int, TokenPair] = {}
        for index, pair in zip(rows, self.tokenize([*rows.values()]), strict=True):
            if isinstance(pair, DataError):
                logprobs[index] = _without(Problem.of(pair, f"row {index}"))
            elif pair.problem is not None:
                logprobs[index] = _without(pair.problem, len(pair.response_ids))
            else:
                usable[index] = pair
        indices, pairs = [*usable], [*usable.values()]
        with closing(self.iter_logprobs(pairs)) as scored:
            for number, logprob in scored:
                logprobs[indices[number]] = logprob
                advance(len(pairs[number]))
        return [logprobs[index] for index in range(len(logprobs))]

    @property
    def config(self) -> ModelConfig:
        """What was asked for."""
        return self.identity.config

    def load(self) -> None:
        """Get the engine ready to score, if that was never done.

        Raises:
            ConfigError: The weights cannot be loaded as asked for.
        """
        if isinstance(self.engine, LazyEngine):
            self.engine.load()

    @property
    def is_loaded(self) -> bool:
        """Whether scoring may begin at once."""
        return not isinstance(self.engine, LazyEngine) or self.engine.is_loaded

    @property
    def device(self) -> str:
        """Where the log-probs are computed: a device, a device map, or the kind of engine."""
        return self.engine.device if isinstance(self.engine, LazyEngine) else self.config.source

    @property
    def weight_bytes(self) -> int | None:
        """Bytes that its weights take in memory; ``None`` where that is not known."""
        return getattr(self.engine, "weight_bytes", None)

    def check_files(self) -> None:
        """Check that the files of model and adapter are those that were there at first.

        Raises:
            EngineError: One was changed, removed or added.
        """
        self.identity.contents.check()


def _without(problem: Problem, num_tokens: int = 0) -> LogProb:
    """Return what stands for the log-prob of a row that was not scored."""
    return LogProb(math.nan, num_tokens, problem=problem)


def _length_limit(name: str, config: ModelConfig, own: int | None, asked: int | None) -> int | None:
    """Return the maximum of tokens a row may have: the model's own limit, or a lower one."""
    if asked is None:
        return own
    if own is not None and asked > own:
        raise ConfigError(
            f"max_length={asked} is more than {name}={config.source!r} can read ({own} tokens). "
            f"Give at most {own}."
        )
    return asked
