"""What a model is, as one value."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from drsow_plugin.config.model import SIDE_OPTIONS, ModelConfig
from drsow_plugin.hashing import text_sha256
from drsow_plugin.models.contents import Contents
from drsow_plugin.models.sources import Source
from drsow_plugin.records import Scoring

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_OF_THE_RUN = ("device", "allow_pickle", "server_key", "server_timeout", "server_wait")
"""The options of a model that say nothing about its log-probs."""


@dataclass(frozen=True)
class ModelIdentity:
    """All that decides the log-probs of a model, and where it comes from.

    Whether two models are the same, whether they tokenize alike, which weights they share, the
    record in results and the fingerprint all follow from it.

    Attributes:
        config: What was asked for.
        source: Where it was found.
        contents: What is in its files, hashed when that is first asked for.
        architecture: The class that transformers has for it, or the kind of engine.
        dtype: Dtype of the weights; empty where an engine was given, or a server does not tell.
        vocab_size: Number of token ids.
        max_length: Maximum of tokens of prompt and response; ``None`` for any.
        template: Source of the chat template; ``None`` without one.
        template_date: What a template that asks for the date is told; ``None`` if it does not.
        tokenizer_sha256: Hash of what the tokenizer does.
        bos_token_id: What may stand before every prompt, if anything.
        end_of_turn_ids: What ends a response.
        scoring: The policies in force.
    """

    config: ModelConfig
    source: Source
    contents: Contents = field(repr=False, compare=False)
    architecture: str
    dtype: str
    vocab_size: int
    max_length: int | None
    template: str | None = field(repr=False)
    template_date: datetime.date | None
    tokenizer_sha256: str
    bos_token_id: int | None
    end_of_turn_ids: tuple[int, ...]
    scoring: Scoring

    @property
    def weights(self) -> ModelConfig:
        """What identifies the loaded weights; see :func:`weights_key`."""
        return weights_key(self.config, self.source)

    def is_same_as(self, other: ModelIdentity) -> bool:
        """Tell whether both give the same log-probs by construction, wherever they compute them."""
        known = self.contents.is_known_as(other.contents)
        if known is not None:
            return known and self._text == other._text
        return self._logprobs == other._logprobs

    def tokenizes_like(self, other: ModelIdentity) -> bool:
        """Tell whether both make the same tokens of the same row."""
        return self._tokens == other._tokens

    @property
    def _text(self) -> tuple[object, ...]:
        """What decides the token ids of a conversation."""
        return (
            *(self.template, self.config.template_args, self.template_date),
            *(self.tokenizer_sha256, self.bos_token_id),
        )

    @property
    def _tokens(self) -> tuple[object, ...]:
        return (*self._text, self.max_length, self.vocab_size, self.scoring)

    @property
    def _logprobs(self) -> tuple[object, ...]:
        config = self.config
        adapter = json.dumps(self.contents.adapter, sort_keys=True)
        return (
            *(self.source, id(config.given.model), id(config.given.engine), self.dtype, adapter),
            *(config.quantization, config.attn_implementation, *self._text),
        )

    @property
    def pinned_config(self) -> ModelConfig:
        """The configuration with the revision of a Hub model replaced by its commit."""
        pinned = self.config
        if self.source.commit:
            pinned = replace(pinned, revision=self.source.commit)
        if self.contents.adapter_commit:
            pinned = replace(pinned, adapter_revision=self.contents.adapter_commit)
        if pinned.template_date == "today" and self.template_date:
            pinned = replace(pinned, template_date=self.template_date.isoformat())
        return pinned

    def describe(self) -> dict[str, Any]:
        """Return where the model came from and what identifies its log-probs, as plain values.

        Raises:
            EngineError: A file was changed.
        """
        described = {name: getattr(self.config, name) for name in ("source", *SIDE_OPTIONS)}
        described |= self._content()
        if self.config.quantization is not None:
            described["quantization"] = json.loads(self.config.quantization)
        for name in _OF_THE_RUN:
            del described[name]
        if self.config.computes_here:  # what another engine does is not known
            described["arithmetic"] = {"tf32": False, "reduced_precision_reduction": False}
        return described

    def fingerprint(self) -> str:
        """Return a hash of what decides the log-probs; not of where it is located.

        Raises:
            EngineError: A file was changed.
        """
        content = self._content() | {
            "repository": None if self.source.local else self.source.name,
            "quantization": self.config.quantization,
            "attn_implementation": self.config.attn_implementation,
            "adapter_repository": self.config.adapter if self.contents.adapter_commit else None,
        }
        if self.source.gguf_file and "sha256" in content:
            content["sha256"] = list(content["sha256"].values())
        return text_sha256(json.dumps(content, sort_keys=True))

    def _content(self) -> dict[str, Any]:
        date, args = self.template_date, self.config.template_args
        return {
            **self.contents.describe(),
            "architecture": self.architecture,
            "dtype": self.dtype,
            "adapter_identity": self.contents.adapter,
            "tokenizer_sha256": self.tokenizer_sha256,
            "max_length": self.max_length,
            "template_sha256": self.template and text_sha256(self.template),
            "template_args": json.loads(args or "null") or None,
            "template_date": date and date.isoformat(),
            "end_of_turn_ids": list(self.end_of_turn_ids),
        }


def weights_key(config: ModelConfig, source: Source) -> ModelConfig:
    """Return what identifies loaded weights; the same for two spellings of one file."""
    return replace(config.weights_only(), source=f"{source.name}:{source.gguf_file}")


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of what a tokenizer does, as far as it can be written down."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = tokenizer.get_vocab() if backend is None else backend.to_str()
    # What templates are told, such as the end of a turn; a backend does not know it by name.
    named = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    specials = [str(token) for token in tokenizer.all_special_tokens]
    return text_sha256(json.dumps([rules, named, specials], sort_keys=True))
