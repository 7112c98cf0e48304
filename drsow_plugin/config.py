"""Options, from strings or Python values, as frozen and checked configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypedDict, cast, get_args

from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.records import Overflow, Reduction, Scoring, SideName
from drsow_plugin.values import parse_choice, parse_flag, parse_positive

SIDES: tuple[SideName, SideName] = ("strong", "weak")
DTYPES = ("auto", "float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelConfig:
    """One side of the pair.

    Attributes:
        source: A Hub id, a local folder, a ``.gguf`` file or the name ``demo``.
        revision: Branch, tag or commit of a Hub id.
        dtype: ``float32``, ``bfloat16``, ``float16``, ``float64``, or ``auto`` for the
            checkpoint's own. ``None`` is float32 on a CPU and ``auto`` elsewhere.
        device: Where the weights go, such as ``cuda:1``; ``None`` is the first accelerator
            or the CPU.
        device_map: An accelerate device map, such as ``auto``, instead of ``device``.
        attn_implementation: As in transformers, such as ``sdpa`` or ``flash_attention_2``.
        quantization: A transformers quantisation config as a JSON object, as JSON text.
        adapter: A PEFT adapter (Hub id or folder) put on top of the weights.
        adapter_revision: Branch, tag or commit of the adapter.
        template: ``tokenizer`` for the tokenizer's own chat template, ``none`` to score as
            a plain language model, or the path of a Jinja file.
        tokenizer: Hub id or folder of the tokenizer, where it is not with the weights.
        trust_remote_code: Whether code from the model's repository may run.
    """

    source: str
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    device_map: str | None = None
    attn_implementation: str | None = None
    quantization: str | None = None
    adapter: str | None = None
    adapter_revision: str | None = None
    template: str = "tokenizer"
    tokenizer: str | None = None
    trust_remote_code: bool = False

    def weights_only(self) -> ModelConfig:
        """Return what identifies the loaded weights: all but template, tokenizer, adapter."""
        return replace(
            self, adapter=None, adapter_revision=None, template="tokenizer", tokenizer=None
        )


@dataclass(frozen=True)
class PairConfig:
    """A strong and a weak model, the scoring policies and how the work is batched.

    Attributes:
        strong: The better-aligned model.
        weak: The less-aligned model.
        scoring: The policies that decide what is scored.
        batch_tokens: Most tokens in a batch, padding included; ``None`` fits the device.
        batch_size: Most rows in a batch; ``None`` is no limit but ``batch_tokens``.
    """

    strong: ModelConfig
    weak: ModelConfig
    scoring: Scoring = field(default_factory=Scoring)
    batch_tokens: int | None = None
    batch_size: int | None = None


class PairOptions(TypedDict, total=False):
    """The options of :class:`~drsow_plugin.DrSoW`, spelled the same wherever strings are used."""

    reduction: Reduction
    end_of_turn: bool
    overflow: Overflow
    max_length: int | None
    batch_tokens: int | None
    batch_size: int | None
    revision: str
    dtype: object
    device: str
    device_map: str | Mapping[str, Any]
    attn_implementation: str
    quantization: str | Mapping[str, Any]
    adapter: str
    adapter_revision: str
    template: str | None
    tokenizer: str
    trust_remote_code: bool
    strong_revision: str
    strong_dtype: object
    strong_device: str
    strong_device_map: str | Mapping[str, Any]
    strong_attn_implementation: str
    strong_quantization: str | Mapping[str, Any]
    strong_adapter: str
    strong_adapter_revision: str
    strong_template: str | None
    strong_tokenizer: str
    strong_trust_remote_code: bool
    weak_revision: str
    weak_dtype: object
    weak_device: str
    weak_device_map: str | Mapping[str, Any]
    weak_attn_implementation: str
    weak_quantization: str | Mapping[str, Any]
    weak_adapter: str
    weak_adapter_revision: str
    weak_template: str | None
    weak_tokenizer: str
    weak_trust_remote_code: bool


SIDE_OPTIONS = tuple(f.name for f in fields(ModelConfig) if f.name != "source")
OPTIONS = frozenset((*SIDES, *PairOptions.__annotations__))


def parse_pair(options: Mapping[str, Any]) -> PairConfig:
    """Turn options into a checked configuration.

    Args:
        options: ``strong`` and ``weak`` (sources), their options spelled ``strong_…`` and
            ``weak_…`` (without the prefix an option holds for both), and the options of
            the pair. Values may be strings, as they come from a command line.

    Raises:
        ConfigError: A name is unknown, a value is invalid, a side is missing, or both sides
            are the same in every option.
    """
    for name in options:
        if name not in OPTIONS:
            raise ConfigError(unknown_name("option", name, OPTIONS))
    config = PairConfig(
        strong=_parse_side("strong", options),
        weak=_parse_side("weak", options),
        scoring=Scoring(
            reduction=cast(
                Reduction,
                parse_choice("reduction", options.get("reduction", "sum"), get_args(Reduction)),
            ),
            end_of_turn=parse_flag("end_of_turn", options.get("end_of_turn", True)),
            overflow=cast(
                Overflow,
                parse_choice("overflow", options.get("overflow", "error"), get_args(Overflow)),
            ),
            max_length=parse_positive("max_length", options.get("max_length")),
        ),
        batch_tokens=parse_positive("batch_tokens", options.get("batch_tokens")),
        batch_size=parse_positive("batch_size", options.get("batch_size")),
    )
    if config.strong == config.weak:
        raise ConfigError(
            f"strong and weak are the same model in every option ({config.strong.source!r}), "
            "so every reward would be 0. Give another weak model, or set it apart, for "
            "example by weak_template=none, weak_revision=… or strong_adapter=…."
        )
    return config


def as_options(config: PairConfig) -> dict[str, Any]:
    """Return the options that :func:`parse_pair` makes this configuration of; no defaults."""
    options: dict[str, Any] = {}
    for side in SIDES:
        model = getattr(config, side)
        for entry in fields(ModelConfig):
            value = getattr(model, entry.name)
            if entry.name == "source":
                options[side] = value
            elif value != entry.default:
                options[f"{side}_{entry.name}"] = value
    for entry in fields(Scoring):
        if getattr(config.scoring, entry.name) != entry.default:
            options[entry.name] = getattr(config.scoring, entry.name)
    for name in ("batch_tokens", "batch_size"):
        if getattr(config, name) is not None:
            options[name] = getattr(config, name)
    return options


def _parse_side(side: SideName, options: Mapping[str, Any]) -> ModelConfig:
    source = options.get(side)
    if source is not None and not isinstance(source, (str, os.PathLike)):
        raise ConfigError(
            f"{side} is a Hub id, a local folder, a .gguf file or 'demo', got a "
            f"{type(source).__name__}. Save the model and give its folder."
        )
    if source is None or str(source) == "":
        raise ConfigError(
            f"No {side} model was given. Set {side}=… to a Hub id, a local folder, a .gguf "
            "file or 'demo'."
        )
    given = {name: _side_value(side, name, options) for name in SIDE_OPTIONS}
    if given["device_map"] is not None and f"{side}_device" not in options:
        given["device"] = None  # a device for both sides gives way to a device map
    if given["adapter_revision"] is not None and given["adapter"] is None:
        raise ConfigError(f"{side}_adapter_revision has no effect without {side}_adapter.")
    if given["device"] is not None and given["device_map"] is not None:
        raise ConfigError(f"Give {side}_device or {side}_device_map, not both.")
    return ModelConfig(
        source=str(source), **{k: cast(Any, v) for k, v in given.items() if v is not None}
    )


def _side_value(side: SideName, name: str, options: Mapping[str, Any]) -> str | bool | None:
    """Return one option of a side, its own or the one for both, checked; ``None`` if not given."""
    full = f"{side}_{name}"
    value = options.get(full, options.get(name))
    if value is None:
        # lm-eval reads the word none as None.
        named = name == "template" and (full in options or name in options)
        return "none" if named else None
    if not isinstance(value, (str, bool, os.PathLike)) and name not in _STRUCTURED:
        raise ConfigError(f"{full} is a text, got {type(value).__name__}.")
    readers: dict[str, Callable[[str, Any], str | bool]] = {
        "trust_remote_code": parse_flag,
        "dtype": _dtype,
        "quantization": _quantization,
        "device_map": _device_map,
    }
    if name in ("tokenizer", "adapter"):
        return os.path.expanduser(str(value))  # noqa: PTH111 (Hub ids are no paths)
    return readers[name](full, value) if name in readers else str(value)


_STRUCTURED = ("dtype", "device", "device_map", "quantization", "template")


def _dtype(name: str, value: object) -> str:
    text = str(value).removeprefix("torch.")
    if text not in DTYPES:
        raise ConfigError(unknown_name(f"value of {name}", text, DTYPES))
    return text


def _device_map(name: str, value: object) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True)
    text = str(value)
    if text.startswith("{"):
        _json(name, text)
    return text


def _quantization(name: str, value: object) -> str:
    """Return a quantisation config, given as JSON text, a JSON file or a mapping, as JSON."""
    text = value
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        path = Path(value).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"{name}: no such file: {value!r}. Give a JSON file or object with "
                "transformers' quantisation config, such as "
                '{"quant_method": "bitsandbytes", "load_in_4bit": true}.'
            )
        text = path.read_bytes()
    parsed = _json(name, text) if isinstance(text, (str, bytes)) else text
    if not isinstance(parsed, Mapping) or "quant_method" not in parsed:
        raise ConfigError(f"{name} is a JSON object with a quant_method, got {value!r:.80}.")
    return json.dumps(dict(parsed), sort_keys=True)


def _json(name: str, text: str | bytes) -> object:
    try:
        parsed: object = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name} is not valid JSON: {error}.") from error
    return parsed
