"""Weights are read from safetensors and GGUF files, which hold numbers; from pickles if allowed.

A pickle is a program that makes what it holds. torch reads one with a restricted unpickler, which
has been got around before, so that files of strangers are not handed to it unasked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.errors import ConfigError
from drsow_plugin.models.sources import Source, translated_errors

_INDEX = "model.safetensors.index.json"
_WEIGHTS = (_INDEX, "model.safetensors")
_ADAPTER = "adapter_model.safetensors"
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}


def check_weights(side: str, config: ModelConfig, source: Source) -> None:
    """Check that what is loaded are the model's own weights, and no pickle unless allowed.

    Args:
        side: The side's name.
        config: The side.
        source: Where it is located. Of a model on the Hub the first file of weights is fetched.

    Raises:
        ConfigError: They are in pickles, an index names one, or it is an adapter as well.
    """
    if source.gguf_file or config.given.model is not None:
        return
    label = f"{side}={config.source!r}"
    folder, is_certain = Path(source.name), False
    if not source.local:
        folder, is_certain = _fetched(label, source.name, source.commit, _WEIGHTS)
    if (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f"{label} is an adapter as well (adapter_config.json), and transformers would load the "
            f"model that this names in place of it. Give that one, and this as {side}_adapter=…; "
            "or remove adapter_config.json from weights that were merged."
        )
    if config.allow_pickle:
        return
    pickles = _pickles_in(folder)
    if not any((folder / name).is_file() for name in _WEIGHTS) and (is_certain or pickles):
        raise _refused(label, side, pickles)
    if named := sorted({name for name in _indexed(folder) if not name.endswith(".safetensors")}):
        raise _refused(label, side, named)


def check_adapter(side: str, config: ModelConfig, file: Path) -> None:
    """Check that an adapter is read from no pickle, unless that is allowed.

    Args:
        side: The side's name.
        config: The side.
        file: Its adapter_config.json; in the snapshot of a commit, where it is on the Hub.

    Raises:
        ConfigError: It is in a pickle.
    """
    if config.allow_pickle:
        return
    label, folder, is_certain = f"{side}_adapter={config.adapter!r}", file.parent, False
    if not Path(str(config.adapter)).expanduser().is_dir():
        folder, is_certain = _fetched(label, str(config.adapter), folder.name, (_ADAPTER,))
    pickles = _pickles_in(folder)
    if not (folder / _ADAPTER).is_file() and (is_certain or pickles):
        raise _refused(label, side, pickles)


def _fetched(
    label: str, repository: str, commit: str | None, names: Sequence[str]
) -> tuple[Path, bool]:
    """Fetch the first of some files that a repository has.

    Returns:
        The folder of the snapshot, and whether it is certain that the repository has no other
        of them; a loader says what is missing where it is not.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    folder, is_certain = Path(), True
    with translated_errors(label, commit):
        for name in ("adapter_config.json", "config.json", *names):
            try:
                folder = Path(hf_hub_download(repository, name, revision=commit)).parent
            except LocalEntryNotFoundError:  # the Hub is out of reach
                is_certain = False
            except EntryNotFoundError:
                continue
            if name in names:
                break
    return folder, is_certain


def _pickles_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)


def _indexed(folder: Path) -> Iterator[str]:
    """Yield the files that an index of safetensors names."""
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        yield from map(str, index["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return  # there is none, or the loader says what is wrong with it


def _refused(label: str, side: str, found: Sequence[str]) -> ConfigError:
    named = f" but {', '.join(found[:3])}" if found else ""
    return ConfigError(
        f"{label} has no weights as safetensors{named}. Pickles, such as pytorch_model.bin, may "
        f"hold code: give weights as safetensors, or set {side}_allow_pickle=true if you trust who "
        "wrote them."
    )
