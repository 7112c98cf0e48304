"""PEFT adapters: their location, which can be scored, what they do to the weights under them."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.errors import ConfigError, MissingExtraError
from drsow_plugin.hub import require_hub_id
from drsow_plugin.models.pickles import check_adapter
from drsow_plugin.models.sources import download, translated_errors

_VIRTUAL_TOKENS = {"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT"}
_ROWS, _LENGTH = 2, 24  # what is scored to see what an adapter does
_WORDS = 1 << 20  # that are summed at once
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def find_adapter(side: str, config: ModelConfig) -> Path | str | None:
    """Return a side's adapter: its folder, or its commit on the Hub; ``None`` if it has none.

    Raises:
        ConfigError: It is not there, or of a kind that cannot be scored.
    """
    if config.adapter is None:
        return None
    folder = Path(config.adapter).expanduser()
    if folder.is_dir():
        if not (folder / "adapter_config.json").is_file():
            raise ConfigError(
                f"{side}_adapter={config.adapter!r} is a folder without an adapter_config.json. "
                "Give the folder that PEFT's save_pretrained wrote."
            )
        _check_adapter(side, config, folder / "adapter_config.json")
        return folder.resolve()
    label = f"{side}_adapter={config.adapter!r}"
    require_hub_id(label, config.adapter)
    file = download(label, config.adapter, "adapter_config.json", config.adapter_revision)
    _check_adapter(side, config, file)
    return file.parent.name


def _check_adapter(side: str, config: ModelConfig, file: Path) -> None:
    with translated_errors(f"{side}_adapter={config.adapter!r}", config.adapter_revision):
        settings = json.loads(file.read_text(encoding="utf-8"))
        kind = str(settings.get("peft_type"))
    if kind in _VIRTUAL_TOKENS:
        raise ConfigError(
            f"{side}_adapter={config.adapter!r} adds virtual tokens to the prompt ({kind}); only "
            "adapters that change weights, such as LoRA, can be scored."
        )
    if settings.get("alora_invocation_tokens"):
        raise ConfigError(
            f"{side}_adapter={config.adapter!r} is an activated LoRA: it works from its invocation "
            "tokens on, wherever these are in a row, and cannot be scored. Give an adapter "
            "without alora_invocation_tokens."
        )
    if str(settings.get("init_lora_weights")).startswith("pissa_niter"):
        raise ConfigError(
            f"{side}_adapter={config.adapter!r} goes with weights that PEFT makes at random each "
            "time it is loaded (init_lora_weights='pissa_niter_…'). Convert it to a plain LoRA "
            "(path_initial_model_for_weight_conversion= of PEFT's save_pretrained)."
        )
    check_adapter(side, config, file)
    if importlib.util.find_spec("peft") is None:
        raise MissingExtraError(f"{side}_adapter", "peft")


def put_on(model: Any, adapted: Any, side: str, config: ModelConfig) -> Any:
    """Put a side's adapter on a model, under the side's name.

    Args:
        model: The model, which is changed.
        adapted: What this returned for another adapter on the same model, or ``None``.
        side: The side's name.
        config: The side.

    Returns:
        PEFT's model.

    Raises:
        ConfigError: It cannot be loaded, or does not belong to these weights.
    """
    from peft import PeftModel

    revision = {"revision": config.adapter_revision} if config.adapter_revision else {}
    name = f"{side}_adapter={config.adapter!r}"
    with translated_errors(name, config.adapter_revision), warnings.catch_warnings():
        # Else PEFT goes on with random weights for what it did not find.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        if adapted is None:
            adapted = PeftModel.from_pretrained(
                model, config.adapter, adapter_name=side, **revision
            )
        else:
            adapted.load_adapter(config.adapter, adapter_name=side, **revision)
        adapted.eval()
    return adapted


@torch.inference_mode()
def tried(model: Any) -> torch.Tensor:
    """Return the logits of a few tokens, to see whether two states of a model are the same."""
    embeddings = model.get_input_embeddings()
    size = int(model.config.get_text_config().vocab_size)
    ids = torch.arange(_ROWS * _LENGTH).mul(7919).remainder(size).view(_ROWS, _LENGTH)
    return model(input_ids=ids.to(embeddings.weight.device), use_cache=False).logits.cpu()  # type: ignore[no-any-return]


def tensors_of(model: Any) -> list[torch.Tensor]:
    """Return a model's parameters and buffers that are in memory."""
    tensors = [*model.parameters(), *model.buffers()]
    return [tensor for tensor in tensors if tensor.device.type != "meta"]


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return what a tensor holds, (bytes,), uint8."""
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def checksums(tensors: Sequence[torch.Tensor]) -> list[tuple[int, int]]:
    """Return for each tensor two sums of its bits, in words of its numbers' size.

    The second weighs each word by its position, so that it depends on their order; both wrap
    around at 64 bits. About as fast as memory is read; another content has others unless
    somebody aims at it.
    """
    return [_checksum(tensor) for tensor in tensors]


def _checksum(tensor: torch.Tensor) -> tuple[int, int]:
    words = tensor.detach().contiguous().view(-1).view(_INTEGERS[tensor.element_size()])
    places = torch.arange(1, min(_WORDS, words.numel()) + 1, device=words.device)
    plain, weighted = torch.zeros(2, dtype=torch.int64, device=words.device)
    for number, part in enumerate(torch.split(words, _WORDS)):  # no copy of the whole in int64
        total = part.sum(dtype=torch.int64)
        plain = plain + total
        weighted = weighted + number * _WORDS * total + (part * places[: len(part)]).sum()
    return int(plain), int(weighted)
