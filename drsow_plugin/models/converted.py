"""GGUF files as folders that transformers loads at once: converted on first use, and kept.

A GGUF file is parsed in Python, whole, for each of configuration, tokenizer and weights, and
its tensors are dequantized. The copy holds the same values: the configuration and tokenizer
as transformers reads them, and the weights in float32, the dtype they are dequantized to.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Literal

from filelock import FileLock

from drsow_plugin.cache import cache_folder, hold, unfinished
from drsow_plugin.config.model import ModelConfig
from drsow_plugin.errors import ConfigError
from drsow_plugin.hashing import file_sha256, sha256_of
from drsow_plugin.models.sources import Source, translated_errors
from drsow_plugin.progress import tell

logger = logging.getLogger(__name__)

_FORMAT = 2  # raised when a copy of another content is written
_MAX_FILE = 512 << 20  # bytes; in float32 the weights take up to eight times that
_MANIFEST = "converted.json"

Part = Literal["config", "tokenizer", "model"]


def loads_fast(side: str, config: ModelConfig, source: Source, part: Part) -> Source:
    """Return where a part of a model is loaded from: for a GGUF file its copy.

    Copies are kept by the contents of the file and the versions of what reads it, and checked
    by their hashes each time. There is none of the weights of a file over 512 MiB, nor where
    the cache cannot be written; the file itself is returned then.

    Args:
        side: The side's name.
        config: The side.
        source: Where it is located.
        part: What is to be loaded.

    Raises:
        ConfigError: The file cannot be read, or changed while it was read.
    """
    if source.gguf_file is None:
        return source
    path = Path(source.name) / source.gguf_file
    if part == "model" and path.stat().st_size > _MAX_FILE:
        return source
    with translated_errors(f"{side}={config.source!r}", config.revision):
        return _copy(source, path, part)


def _copy(source: Source, path: Path, part: Part) -> Source:
    sha256 = file_sha256(path)
    versions = "-".join(metadata.version(name) for name in ("transformers", "gguf"))
    name = f"{sha256[:32]}-{versions}-{_FORMAT}-{part}"
    try:
        folder = cache_folder() / "converted" / name
    except ConfigError as error:
        logger.warning("%s: no copy is kept, it is read each time: %s", path.name, error)
        return source
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _is_whole(folder):
                tell(f"reading the {part} of {path.name} once; a copy is kept in {folder.parent}")
                _make(folder, lambda into: _WRITERS[part](source, into))
                if sha256_of(path) != sha256:
                    shutil.rmtree(folder)
                    raise ConfigError("it changed while it was read. Run again when it is whole.")
            hold(folder / _MANIFEST)
    except (OSError, _IncompleteError) as error:
        logger.warning("%s: no copy is kept, it is read each time: %s", path.name, error)
        return source
    return Source(str(folder), None, local=True)


def _make(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a copy, whole or not at all."""
    with unfinished(folder.parent) as temporary:
        into = temporary / folder.name
        into.mkdir()
        write(into)
        hashes = {path.name: sha256_of(path) for path in sorted(into.iterdir())}
        (into / _MANIFEST).write_text(json.dumps(hashes, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        into.rename(folder)


def _is_whole(folder: Path) -> bool:
    """Tell whether a copy is there, each file as it was written."""
    try:
        hashes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return all(sha256_of(folder / name) == sha256 for name, sha256 in hashes.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


class _IncompleteError(Exception):
    """A checkpoint lacks weights, which transformers makes up."""


def _write_config(source: Source, into: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.from_pretrained(source.name, gguf_file=source.gguf_file).save_pretrained(into)


def _write_tokenizer(source: Source, into: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(source.name, gguf_file=source.gguf_file).save_pretrained(into)


def _write_model(source: Source, into: Path) -> None:
    from safetensors.torch import save_model
    from transformers import AutoConfig

    from drsow_plugin.models.loading import load_causal_lm

    model, missing = load_causal_lm(source.name, gguf_file=source.gguf_file, dtype="float32")
    if missing:
        raise _IncompleteError(f"it lacks {', '.join(sorted(missing))}")
    save_model(model, str(into / "model.safetensors"), metadata={"format": "pt"})
    config = AutoConfig.from_pretrained(source.name, gguf_file=source.gguf_file)
    config.architectures = [type(model).__name__]  # by which TRL loads a reference model
    config.save_pretrained(into)


_WRITERS: dict[Part, Callable[[Source, Path], None]] = {
    "config": _write_config,
    "tokenizer": _write_tokenizer,
    "model": _write_model,
}
