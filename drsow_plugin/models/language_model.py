"""The two sides of a pair, opened: tokenizer and template at once, weights on first use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from drsow_plugin.config.model import SIDE_OPTIONS, ModelConfig, date_of
from drsow_plugin.engines import Engine
from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.errors import ConfigError, DataError
from drsow_plugin.hashing import text_sha256
from drsow_plugin.models.adapters import find_adapter
from drsow_plugin.models.converted import loads_fast
from drsow_plugin.models.identity import Contents, tokenizer_sha256
from drsow_plugin.models.pool import Shared, weight_bytes
from drsow_plugin.models.sources import (
    Source,
    load_config,
    load_tokenizer,
    locate,
    read_template,
)
from drsow_plugin.models.weights import Weights, resolve_device, resolve_dtype
from drsow_plugin.records import Message, Scoring, TokenPair
from drsow_plugin.tokens.chat_template import parse_args
from drsow_plugin.tokens.overflow import fitted
from drsow_plugin.tokens.renderer import Renderer


@dataclass(frozen=True)
class Batching:
    """Most tokens and most rows in a batch; ``None`` fits the device, or is no limit."""

    tokens: int | None = None
    rows: int | None = None


_DEFAULT = Batching()


class Side:
    """A model with its own tokenizer, template and length limit: of the pair, or the router's."""

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        shared: Shared,
        scoring: Scoring,
        batching: Batching = _DEFAULT,
    ) -> None:
        """Read tokenizer, template and configuration, and check them; no weights.

        Args:
            name: ``strong``, ``weak`` or ``router``.
            config: The model.
            shared: What the other models have loaded already.
            scoring: What is scored.
            batching: How the work is batched.

        Raises:
            ConfigError: The model, tokenizer or template is not there or cannot be used.
        """
        self.name = name
        self._scoring = scoring
        self._batching = batching
        self._shared = shared
        self._config = config
        self._device = resolve_device(name, self._config)
        self._source: Source = locate(name, self._config)
        # Before anything is read from the files.
        self._contents = Contents(name, config, self._source, find_adapter(name, config))
        key = replace(self._files_key(), tokenizer=config.tokenizer, given=config.given)
        if key not in shared.read:
            where = partial(loads_fast, name, self._config, self._source)
            shared.read[key] = (
                load_config(name, self._config, where("config")),
                load_tokenizer(name, self._config, where("tokenizer")),
            )
        self._hf_config, self.tokenizer = shared.read[key]
        self.template = read_template(name, self._config, self.tokenizer)
        try:
            self.renderer = Renderer(
                self.tokenizer,
                self.template,
                end_of_turn=scoring.end_of_turn,
                control_tokens=scoring.control_tokens,
                template_args=parse_args(config.template_args),
                template_date=date_of(config.template_date),
            )
        except ConfigError as error:
            raise ConfigError(f"{name}={self._config.source!r}: {error}") from error
        self._vocab_size = int(self._hf_config.get_text_config().vocab_size)
        self.max_length = self._length_limit()

    def check_files(self) -> None:
        """Check that the files of model and adapter are those that were there at first.

        Raises:
            EngineError: One was changed, removed or added.
        """
        self._contents.check()

    def tokenise_all(
        self, rows: Sequence[tuple[list[Message], str, str]]
    ) -> list[TokenPair | DataError]:
        """Return rows as token ids that fit the model, or with the reason why not.

        Args:
            rows: Messages, response, and how to name the row in an error.

        Returns:
            For each row its tokens, or the error: the row is too long and ``overflow`` is
            ``error``, the template refuses it, or its tokens are not the model's.
        """
        named = [(messages, text, f"{where}, {self.name} model") for messages, text, where in rows]
        return [
            pair if isinstance(pair, DataError) else self._fitted(pair, where)
            for pair, (_, _, where) in zip(self.renderer.encode_all(named), rows, strict=True)
        ]

    def tokenises_like(self, other: Side) -> bool:
        """Tell whether both sides make the same tokens of the same row."""
        return self._tokenisation() == other._tokenisation()

    def _tokenisation(self) -> tuple[object, ...]:
        return (
            *(self.template, self._config.template_args, self.renderer.template_date),
            *(tokenizer_sha256(self.tokenizer), self.tokenizer.bos_token_id),
            *(self.max_length, self._vocab_size, self._scoring),
        )

    def _fitted(self, pair: TokenPair, where: str) -> TokenPair | DataError:
        unknown = max((*pair.prompt_ids, *pair.response_ids), default=0)
        if unknown >= self._vocab_size:
            token = self.tokenizer.convert_ids_to_tokens(unknown)
            return DataError(
                f"{where}: the token {token!r} ({unknown}) is outside the {self.name} model's "
                f"vocabulary of {self._vocab_size}. The tokenizer does not belong to the model."
            )
        if self.max_length is None or len(pair) <= self.max_length:
            return pair
        start = pair.prompt_ids[:1] if pair.prompt_ids[0] == self.tokenizer.bos_token_id else ()
        where = f"{where}, {self.name} model"
        return fitted(pair, self.max_length, self._scoring, where, start)

    @property
    def engine(self) -> Engine:
        """The engine that scores this side; loads the weights when they are not in memory."""
        return self._shared.engine(
            self.name, self._files_key(), (self._device, self._weight_bytes), self._open_engine
        )

    @property
    def is_resident(self) -> bool:
        """Whether the weights are in memory."""
        return self._shared.is_resident(self.name)

    def check_weights(self) -> None:
        """Load the weights unless they were loaded before.

        Raises:
            ConfigError: They cannot be loaded as asked for.
        """
        if not self._shared.was_loaded(self.name):
            _ = self.engine

    def _weight_bytes(self) -> int | None:
        config = self._config
        if config.given.model is not None:
            return 0
        if config.device_map is not None or config.quantization is not None:
            return None
        dtype = resolve_dtype(config, self._device)
        return weight_bytes(self._hf_config, dtype, config.trust_remote_code)

    def _open_engine(self, weights: Weights | None) -> tuple[Weights, Engine]:
        if weights is None or self._config.adapter is None or not weights.has_adapter:
            return self._engine_on(weights)
        try:
            return self._engine_on(weights)
        except ConfigError:  # not any two adapters go together on one model
            weights, engine = self._engine_on(None)
            weights.owner = self.name
            return weights, engine

    def _engine_on(self, weights: Weights | None) -> tuple[Weights, Engine]:
        if weights is None:
            weights = Weights(self.name, self._config, self._source)
        adapter = None if self._config.adapter is None else self.name
        if adapter is not None:
            weights.add_adapter(adapter, self.pinned_config)
        network, sharing = weights.ready(adapter)
        self.check_files()  # before hours of work, not only after it
        return weights, LocalEngine(
            network,
            sharing,
            batch_tokens=self._batching.tokens,
            batch_size=self._batching.rows,
            adapter=partial(weights.use, adapter),
        )

    def _files_key(self) -> ModelConfig:
        """Return the configuration of the weights; the same for two spellings of one file."""
        where = f"{self._source.name}:{self._source.gguf_file}"
        return replace(self._config.weights_only(), source=where)

    @property
    def device(self) -> str:
        """Where the weights go: a device, or how a device map spreads them."""
        return self._config.device_map or str(self._device)

    def is_same_as(self, other: Side) -> bool:
        """Tell whether both sides would give the same log-probs by construction."""
        return self._identity() == other._identity()

    def _identity(self) -> tuple[object, ...]:
        """Return what decides the log-probs; not where they are computed, nor how it is spelled."""
        config = self._config
        dtype, adapter = resolve_dtype(config, self._device), self._contents.adapter
        return (
            *(self._source, config.given.model, config.quantization, config.attn_implementation),
            *(dtype, json.dumps(adapter, sort_keys=True)),
            *(self.template, self._config.template_args, self.renderer.template_date),
            *(tokenizer_sha256(self.tokenizer), self.tokenizer.bos_token_id),
        )

    def describe(self) -> dict[str, Any]:
        """Return where this side came from and what identifies its log-probs, as plain values."""
        options = {name: getattr(self._config, name) for name in ("source", *SIDE_OPTIONS)}
        described = {**options, **self._content()}
        if self._config.quantization is not None:
            described["quantization"] = json.loads(self._config.quantization)
        del described["device"]
        return described

    def fingerprint(self) -> str:
        """Return a hash of what decides this side's log-probs; not of where it lies."""
        content = self._content() | {
            "repository": None if self._source.local else self._source.name,
            "quantization": self._config.quantization,
            "attn_implementation": self._config.attn_implementation,
            "adapter_repository": self._config.adapter if self._contents.adapter_commit else None,
        }
        if self._source.gguf_file:
            content["sha256"] = list(content["sha256"].values())
        return text_sha256(json.dumps(content, sort_keys=True))

    @property
    def dtype(self) -> str:
        """Dtype of the weights."""
        dtype = resolve_dtype(self._config, self._device)
        if dtype != "auto":
            return dtype
        return str(getattr(self._hf_config, "dtype", None) or "auto").removeprefix("torch.")

    def _content(self) -> dict[str, Any]:
        date = self.renderer.template_date
        return {
            **self._contents.describe(),
            "architecture": (self._hf_config.architectures or [self._hf_config.model_type])[0],
            "dtype": self.dtype,
            "adapter_identity": self._contents.adapter,
            "tokenizer_sha256": tokenizer_sha256(self.tokenizer),
            "max_length": self.max_length,
            "template_sha256": self.template and text_sha256(self.template),
            "template_args": parse_args(self._config.template_args) or None,
            "template_date": date and date.isoformat(),
            "end_of_turn_ids": list(self.renderer.end_of_turn_ids),
        }

    @property
    def pinned_config(self) -> ModelConfig:
        """The configuration with the revision of a Hub model replaced by its commit."""
        pinned = self._config
        if self._source.commit:
            pinned = replace(pinned, revision=self._source.commit)
        if self._contents.adapter_commit:
            pinned = replace(pinned, adapter_revision=self._contents.adapter_commit)
        if pinned.template_date == "today" and self.renderer.template_date:
            pinned = replace(pinned, template_date=self.renderer.template_date.isoformat())
        return pinned

    def _length_limit(self) -> int | None:
        """Return the most tokens a row may have: the model's own limit, or a lower one."""
        own = getattr(self._hf_config.get_text_config(), "max_position_embeddings", None)
        asked = self._scoring.max_length
        if asked is None:
            return own
        if own is not None and asked > own:
            raise ConfigError(
                f"max_length={asked} is more than {self.name}={self._config.source!r} can read "
                f"({own} tokens). Give at most {own}."
            )
        return asked
