"""A trained reward model, opened: conversations in, one number each out."""

from __future__ import annotations

import json
import logging
import math
import platform
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any

from drsow_plugin.config.model import date_of
from drsow_plugin.config.reward_model import SIDE, RewardModelConfig, parse_reward_model
from drsow_plugin.errors import ConfigError, DataError, OverflowLengthError
from drsow_plugin.hashing import text_sha256
from drsow_plugin.models.contents import Contents
from drsow_plugin.models.devices import torch_version
from drsow_plugin.models.identity import tokenizer_sha256
from drsow_plugin.models.pickles import check_weights
from drsow_plugin.models.reward_head import RewardHead
from drsow_plugin.models.row import ModelRow
from drsow_plugin.models.sources import (
    Source,
    load_tokenizer,
    locate,
    read_template,
    translated_errors,
)
from drsow_plugin.models.weights import dtype_of, resolve_device
from drsow_plugin.progress import token_progress, told
from drsow_plugin.prompts import check_lists
from drsow_plugin.records import NOT_FINITE, TOO_LONG, Batching, Problem, Prompt
from drsow_plugin.tokens.conversations import Conversations

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_VERSIONED = ("drsow-plugin", "transformers")
_KIND = "ForSequenceClassification"


class RewardModel:
    """A sequence classifier with one output, its tokenizer and its chat template.

    The prompt and the response are rendered by the template as one finished conversation, and
    the logit is the reward: a number of any sign and of the model's own scale, not nats.

    Attributes:
        config: What was asked for.
        template: Source of the chat template.
        max_length: Maximum of tokens of prompt and response; ``None`` for any.
        notes: How often what was unusual about the rows that were scored.
    """

    def __init__(self, pretrained: str | None = None, **options: Any) -> None:
        """Open a model: read its tokenizer and template; weights are loaded on first use.

        Args:
            pretrained: A Hub id or a folder.
            **options: Those of a reward model in ``docs/options.md``.

        Raises:
            ConfigError: An option is wrong, or the model, its tokenizer or its template is not
                there or cannot be used.
        """
        named = {} if pretrained is None else {"pretrained": pretrained}
        self.config: RewardModelConfig = parse_reward_model({**named, **options})
        model = self.config.model
        self._label = f"{SIDE}={model.source!r}"
        self._source = locate(SIDE, model)
        if self._source.gguf_file is not None:
            raise ConfigError(
                f"{self._label} is a GGUF file, and reward models are read from checkpoints of "
                "transformers. Give a Hub id or a folder."
            )
        if self._source.local:  # on the Hub weights are not looked for before they are needed
            check_weights(SIDE, model, self._source)
        self._contents = Contents(SIDE, model, self._source, None)
        self._device = resolve_device(SIDE, model)
        self._hf_config = _read_config(self._label, model.revision, self._source, self.config)
        self.tokenizer = load_tokenizer(SIDE, model, self._source)
        self.template = _read_template(self._label, self.config, self.tokenizer)
        try:
            self._conversations = Conversations(
                self.tokenizer,
                self.template,
                add_special_tokens=self.config.add_special_tokens,
                template_args=json.loads(model.template_args or "{}"),
                template_date=date_of(model.template_date),
            )
        except ConfigError as error:
            raise ConfigError(f"{self._label}: {error}") from error
        self.max_length = self._limit()
        self.notes: Counter[str] = Counter()

    def score(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        progress: Callable[[int, int], object] | None = None,
    ) -> list[float | Problem]:
        """Return the reward of each response to its prompt, or why there is none.

        Args:
            prompts: One for each response; a string is a single user turn.
            responses: What the assistant says.
            progress: Called with the number of tokens just scored and that of all; ``None``
                shows a bar.

        Returns:
            The logits, in the order of the rows; a problem where a row is too long
            (``overflow="skip"``) or its reward is not finite.

        Raises:
            DataError: A row cannot be read, or is too long and ``overflow`` is ``error``. Nothing
                was computed then.
            ConfigError: The weights cannot be loaded.
            EngineError: The model fails, or its files were changed.
        """
        check_lists(prompts, responses)
        rows = list(zip(prompts, responses, strict=True))
        read = [self._read(*row, f"row {index}") for index, row in enumerate(rows)]
        usable = {index: row for index, row in enumerate(read) if not isinstance(row, Problem)}
        found: list[float | Problem] = [row if isinstance(row, Problem) else 0.0 for row in read]
        indices, ids = [*usable], [*usable.values()]
        batching = Batching(self.config.batch_tokens, self.config.batch_size)
        with token_progress(progress, sum(map(len, ids)), "reward") as advance:
            for number, reward in self._head.rewards(ids, batching) if ids else ():
                finite = math.isfinite(reward)
                found[indices[number]] = reward if finite else _not_finite(reward)
                advance(len(ids[number]))
        self._contents.check()
        return found

    def _read(self, prompt: Prompt, response: str, where: str) -> tuple[int, ...] | Problem:
        """Return a row's token ids, or why it is not scored.

        Raises:
            DataError: It cannot be read, or is too long.
        """
        row = ModelRow.read(prompt, response, where)
        encoded = self._conversations.encode(row.messages, row.response, where)
        if isinstance(encoded, DataError):
            raise encoded
        self.notes.update(encoded.notes)
        size = len(encoded.ids)
        unknown = max(encoded.ids)
        if unknown >= self._hf_config.get_text_config().vocab_size:
            token = self.tokenizer.convert_ids_to_tokens(unknown)
            raise DataError(
                f"{where}: the token {token!r} ({unknown}) is outside the model's vocabulary. The "
                "tokenizer does not belong to the model."
            )
        if self.max_length is None or size <= self.max_length:
            return encoded.ids
        if self.config.overflow == "error":
            raise OverflowLengthError(
                f"{where}: {size} tokens are more than max_length {self.max_length}. Set "
                "overflow=skip to leave such rows without a reward."
            )
        return Problem(TOO_LONG, f"{size} tokens are more than max_length {self.max_length}")

    @cached_property
    def _head(self) -> RewardHead:
        with told("loading the reward model"):
            head = RewardHead(self._label, self.config.model, self._source, self._hf_config)
        if not head.pads:
            logger.warning(
                "%s: padding changes its rewards, so only rows of one length share a batch.",
                self._label,
            )
        return head

    def _limit(self) -> int | None:
        own = getattr(self._hf_config.get_text_config(), "max_position_embeddings", None)
        asked = self.config.max_length
        if asked is not None and own is not None and asked > own:
            raise ConfigError(
                f"max_length={asked} is more than {self._label} can read ({own} tokens). Give at "
                f"most {own}."
            )
        return asked or own

    def describe(self) -> dict[str, Any]:
        """Return all that identifies the rewards, as plain values for a results file.

        Raises:
            EngineError: A file was changed.
        """
        model, versions = self.config.model, {name: metadata.version(name) for name in _VERSIONED}
        return {
            "source": model.source,
            "trust_remote_code": model.trust_remote_code,
            **self._content(),
            "device": str(self._device),
            "versions": {"python": platform.python_version(), "torch": torch_version(), **versions},
        }

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that changes a reward, wherever the files are located."""
        return text_sha256(json.dumps(self._content(), sort_keys=True))

    def _content(self) -> dict[str, Any]:
        config, date = self.config, self._conversations.date
        model = config.model
        return {
            **self._contents.describe(),
            "architecture": (self._hf_config.architectures or [self._hf_config.model_type])[0],
            "dtype": dtype_of(model, self._device, self._hf_config),
            "quantization": json.loads(model.quantization or "null"),
            "attn_implementation": model.attn_implementation,
            "tokenizer_sha256": tokenizer_sha256(self.tokenizer),
            "template_sha256": text_sha256(self.template),
            "template_args": json.loads(model.template_args or "null"),
            "template_date": date and date.isoformat(),
            "add_special_tokens": config.add_special_tokens,
            "max_length": self.max_length,
            "overflow": config.overflow,
        }


def _not_finite(reward: float) -> Problem:
    detail = f"the reward is {reward}; float32 or bfloat16 reach further than float16"
    return Problem(NOT_FINITE, detail)


def _read_config(
    label: str, revision: str | None, source: Source, config: RewardModelConfig
) -> PretrainedConfig:
    """Read a checkpoint's configuration as one with one label.

    Raises:
        ConfigError: It cannot be read, is of another kind of model, or has several labels.
    """
    from transformers import AutoConfig, PretrainedConfig

    arguments = source.arguments(config.model)
    with translated_errors(label, revision):
        raw, _ = PretrainedConfig.get_config_dict(source.name, **arguments)
        loaded: PretrainedConfig = AutoConfig.from_pretrained(source.name, **arguments)
    kinds = [str(kind) for kind in raw.get("architectures") or ()]
    own_code = config.model.trust_remote_code and "auto_map" in raw
    if kinds and not own_code and not any(kind.endswith(_KIND) for kind in kinds):
        raise ConfigError(
            f"{label} is a {kinds[0]}, and a reward model is a checkpoint of a …{_KIND} with one "
            "output. A causal language model is scored by --model hf, or as a side of --model "
            "drsow."
        )
    says = {"id2label", "num_labels", "label2id"} & raw.keys()
    if says and loaded.num_labels != 1:
        raise ConfigError(
            f"{label} has num_labels={loaded.num_labels}, and a reward model gives one number. "
            "Give a checkpoint with one label."
        )
    loaded.num_labels = 1
    return loaded


def _read_template(
    label: str, config: RewardModelConfig, tokenizer: PreTrainedTokenizerBase
) -> str:
    """Return the Jinja source of the chat template.

    Raises:
        ConfigError: There is none, or it cannot be read.
    """
    try:
        if config.model.template == "tokenizer":
            return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise ConfigError(
            f"{label}: the tokenizer has no chat template, and what the model was trained on is "
            "not known without it. Give the template of its training: template=FILE."
        ) from error
    return str(read_template(SIDE, config.model, tokenizer))
