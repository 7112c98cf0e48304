"""From a configured side to files: where weights and tokenizer are, and how they are loaded."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drsow_plugin.config.in_memory import check_not_in_memory
from drsow_plugin.config.model import RENDERED, ModelConfig
from drsow_plugin.errors import ConfigError, DrSoWError, HubError
from drsow_plugin.hub import require_hub_id

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "tekken.json",
)
_AS_IT_STANDS = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
_OFFLINE = (
    "not a folder here, not in the local Hub cache, and the Hub could not be reached. Check the "
    "network, or download the model elsewhere and give its folder."
)


@dataclass(frozen=True)
class Source:
    """Where a model is located.

    Attributes:
        name: Hub id or folder, as transformers takes it.
        gguf_file: File name inside ``name``, for a GGUF file.
        local: Whether ``name`` is a folder on this machine.
        commit: The commit of a Hub id.
    """

    name: str
    gguf_file: str | None
    local: bool
    commit: str | None = None

    def arguments(self, config: ModelConfig) -> dict[str, Any]:
        """Return the keyword arguments that every ``from_pretrained`` takes for it."""
        arguments: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
        if self.commit:  # not the branch, which may move between two of them
            arguments["revision"] = self.commit
        if self.gguf_file:
            arguments["gguf_file"] = self.gguf_file
        return arguments


def locate(side: str, config: ModelConfig) -> Source:
    """Find a side's weights, fetching the demo model if that is what is named.

    Raises:
        ConfigError: Nothing is there, and the name cannot be a Hub id.
    """
    if config.given.model is not None or config.given.engine is not None:
        return Source(config.source, None, local=True)
    check_not_in_memory(side, config.source)
    if config.source == "demo":
        if config.revision is not None:
            raise ConfigError(f"{side}_revision has no effect on the demo model. Leave it out.")
        from drsow_plugin.models.demo import demo_model

        path = demo_model()
        return Source(str(path.parent), path.name, local=True)
    path = Path(config.source).expanduser().resolve()
    if path.exists() and config.revision is not None:
        raise ConfigError(
            f"{side}_revision={config.revision!r} has no effect: {config.source!r} is on this "
            "machine. Leave it out, or give a Hub id."
        )
    if path.is_file():
        if path.suffix != ".gguf":
            raise ConfigError(
                f"{side}={config.source!r} is a file, and not a .gguf file. Give the folder "
                "that holds the model."
            )
        return Source(str(path.parent), path.name, local=True)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(
                f"{side}={config.source!r} is a folder without a config.json, so it holds no "
                "transformers model. Give the folder that save_pretrained wrote, or a .gguf file."
            )
        return Source(str(path), None, local=True)
    require_hub_id(f"{side}={config.source!r}", config.source)
    file = download(f"{side}={config.source!r}", config.source, "config.json", config.revision)
    return Source(config.source, None, local=False, commit=file.parent.name)


def load_config(side: str, config: ModelConfig, source: Source) -> PretrainedConfig:
    """Load a side's transformers configuration; no weights.

    Raises:
        ConfigError: It does not exist or cannot be read.
    """
    from transformers import AutoConfig

    if config.given.model is not None:
        return config.given.model.config
    with translated_errors(f"{side}={config.source!r}", config.revision):
        loaded: PretrainedConfig
        loaded = AutoConfig.from_pretrained(source.name, **source.arguments(config))
    return loaded


def load_tokenizer(side: str, config: ModelConfig, source: Source) -> PreTrainedTokenizerBase:
    """Load a side's tokenizer.

    Raises:
        ConfigError: There is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    if config.given.tokenizer is not None:
        return copy.deepcopy(config.given.tokenizer)  # a call may change its settings
    label, name, arguments = f"{side}={config.source!r}", source.name, source.arguments(config)
    if config.tokenizer is not None:
        check_not_in_memory(f"{side}_tokenizer", config.tokenizer)
        label, name = f"{side}_tokenizer={config.tokenizer!r}", config.tokenizer
        if not Path(name).is_dir():
            require_hub_id(label, name)
        arguments = {"trust_remote_code": config.trust_remote_code}
    elif (
        source.local
        and source.gguf_file is None
        and not any((Path(name) / file).is_file() for file in _TOKENIZER_FILES)
    ):
        raise ConfigError(
            f"{side}={config.source!r}: the folder holds no tokenizer. Save one there, or "
            f"name one with {side}_tokenizer=…."
        )
    with translated_errors(label, config.revision):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, **arguments)
    return tokenizer


def read_template(side: str, config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the Jinja source of a side's chat template, or ``None`` for no template.

    Raises:
        ConfigError: The tokenizer has no template where its own is asked for, or there is
            no such file.
    """
    if config.template == "none":
        return None
    if config.template == RENDERED:
        return _AS_IT_STANDS
    if config.template != "tokenizer":
        path = Path(config.template).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"{side}_template={config.template!r}: no such file. Valid: 'tokenizer' (the "
                "tokenizer's own), 'none' (no chat template), 'rendered', or the path of a Jinja "
                "file."
            )
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{side}_template={config.template!r}: {error}") from error
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise ConfigError(
            f"{side}={config.source!r}: the tokenizer has no chat template. Set "
            f"{side}_template=none to score it without one, the way a base model is used, "
            f"or {side}_template=FILE to give a Jinja template."
        ) from error


def download(label: str, repository: str, name: str, revision: str | None) -> Path:
    """Return a file of a repository, in the Hub's cache, which names snapshots by commit."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with translated_errors(label, revision):
        try:
            return Path(hf_hub_download(repository, name, revision=revision))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError as error:
            raise ConfigError(
                f"{label}: the repository has no {name}. A model has a config.json; an adapter "
                "has an adapter_config.json, and is given beside its base with …_adapter=."
            ) from error


@contextmanager
def translated_errors(name: str, revision: str | None) -> Iterator[None]:
    """Turn whatever the loaders raise into errors that say what to do.

    Args:
        name: What is being loaded, as the option that named it.
        revision: The revision that was asked for.
    """
    from huggingface_hub import errors as hub

    try:
        with _quiet_hub():
            yield
    except DrSoWError:
        raise
    except Exception as error:  # the loaders have no common error, and run code of the model's
        if type(error).__name__ == "OutOfMemoryError":  # of torch, which may not be there
            raise
        reasons: list[tuple[type[Exception], str]] = [
            (
                hub.GatedRepoError,
                "the repository is gated. Ask for access on its page, then log in with 'hf auth "
                "login'.",
            ),
            (hub.RevisionNotFoundError, f"the repository has no revision {revision!r}."),
            (
                hub.RepositoryNotFoundError,
                "no such folder here and no such repository on the Hub. Check the name; for a "
                "private repository log in with 'hf auth login'.",
            ),
            (hub.LocalEntryNotFoundError, _OFFLINE),
            (hub.OfflineModeIsEnabled, _OFFLINE),
        ]
        for cause in _chain(error):
            for kind, reason in reasons:
                if isinstance(cause, kind):
                    raise HubError(f"{name}: {reason}") from error
        raise ConfigError(f"{name} could not be loaded: {_first_line(error)}") from error


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep huggingface_hub's retry warnings off the screen while a name is looked up."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]
