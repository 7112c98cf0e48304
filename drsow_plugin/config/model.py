"""One model: where it comes from and how it is loaded, as frozen and checked configuration."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

from drsow_plugin.config.in_memory import (
    Given,
    checked_model,
    checked_tokenizer,
    is_object,
    name_of,
)
from drsow_plugin.config.parse import parse_flag
from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.records import DEFAULT_DATE

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
        attn_implementation: As in transformers, such as ``sdpa`` or ``flash_attention_2``;
            rows are then scored one by one with it, and share no prefixes.
        quantization: A transformers quantisation config as a JSON object, as JSON text.
        adapter: A PEFT adapter (Hub id or folder) put on top of the weights.
        adapter_revision: Branch, tag or commit of the adapter.
        template: ``tokenizer`` for the tokenizer's own chat template, ``none`` to score as
            a plain language model, or the path of a Jinja file.
        template_args: Variables of the template, such as ``enable_thinking``, as JSON text.
        template_date: What a template that asks for the date is told: ``YYYY-MM-DD``, or
            ``today``; ``None`` is 2024-07-26, what the templates of Llama 3 name without a clock.
        tokenizer: Hub id or folder of the tokenizer, where it is not with the weights.
        trust_remote_code: Whether code from the model's repository may run.
        given: The model, engine or tokenizer, where it was given as an object; ``source`` or
            ``tokenizer`` only stands for it then.
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
    template_args: str | None = None
    template_date: str | None = None
    tokenizer: str | None = None
    trust_remote_code: bool = False
    given: Given = field(default_factory=Given, repr=False)

    def weights_only(self) -> ModelConfig:
        """Return what identifies the loaded weights: all but template, tokenizer, adapter."""
        return replace(
            self,
            adapter=None,
            adapter_revision=None,
            template="tokenizer",
            template_args=None,
            template_date=None,
            tokenizer=None,
            given=self.given.model_only(),
        )


SIDE_OPTIONS = tuple(f.name for f in fields(ModelConfig) if f.name not in ("source", "given"))


def parse_model(
    side: str, source: object, options: Mapping[str, Any], shared: Collection[str] | None = None
) -> ModelConfig:
    """Turn the options of one model into a checked configuration.

    Args:
        side: What its options begin with, such as ``strong``.
        source: The model.
        options: All options; those of this model are spelled ``SIDE_NAME``.
        shared: The options that, spelled without a prefix, hold for this model too; ``None``
            is all of them.

    Raises:
        ConfigError: The model is missing, or an option is wrong.
    """
    shared = SIDE_OPTIONS if shared is None else shared
    own = {f"{side}_{name}" for name in SIDE_OPTIONS} | set(shared)
    options = {name: value for name, value in options.items() if name in own}
    objects, source, options = _given(side, source, options)
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
    if given["template"] == "none" and given["template_args"] is not None:
        if f"{side}_template_args" in options:
            raise ConfigError(f"{side}_template_args has no effect with {side}_template=none.")
        given["template_args"] = None
    if given["device"] is not None and given["device_map"] is not None:
        raise ConfigError(f"Give {side}_device or {side}_device_map, not both.")
    return ModelConfig(
        source=str(source),
        given=objects,
        **{k: cast(Any, v) for k, v in given.items() if v is not None},
    )


def _given(
    side: str, source: object, options: Mapping[str, Any]
) -> tuple[Given, object, Mapping[str, Any]]:
    """Return the objects among a side's source and options, and both with names for them."""
    objects = Given()
    if is_object(source):
        names = {name.removeprefix(f"{side}_") for name, v in options.items() if v is not None}
        option = "router_model" if side == "router" else side
        objects = checked_model(option, side, source, names)
        source = name_of(source)
    own = f"{side}_tokenizer"
    value = options.get(own, options.get("tokenizer"))
    if is_object(value):
        objects = replace(objects, tokenizer=checked_tokenizer(own, value))
        options = {**options, own: name_of(value)}
    return objects, source, options


def model_options(side: str, config: ModelConfig) -> dict[str, Any]:
    """Return the options of a model, but for its source, that are not defaults."""
    return {
        f"{side}_{entry.name}": getattr(config, entry.name)
        for entry in fields(ModelConfig)
        if entry.name in SIDE_OPTIONS and getattr(config, entry.name) != entry.default
    }


def _side_value(side: str, name: str, options: Mapping[str, Any]) -> str | bool | None:
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
        "template_args": _template_args,
        "template_date": _template_date,
        "device_map": _device_map,
    }
    if name in ("tokenizer", "adapter"):
        return os.path.expanduser(str(value))  # noqa: PTH111 (Hub ids are no paths)
    return readers[name](full, value) if name in readers else str(value)


_STRUCTURED = (
    "dtype",
    "device",
    "device_map",
    "quantization",
    "template",
    "template_args",
    "template_date",
)


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
    parsed = _json_object(
        name,
        value,
        "transformers' quantisation config, such as "
        '{"quant_method": "bitsandbytes", "load_in_4bit": true}',
    )
    if "quant_method" not in parsed:
        raise ConfigError(f"{name} is a JSON object with a quant_method, got {value!r:.80}.")
    return json.dumps(parsed, sort_keys=True)


_RESERVED = ("messages", "add_generation_prompt", "conversation", "chat_template", "tokenize")


def _template_args(name: str, value: object) -> str:
    """Return a template's variables, given as JSON text, a JSON file or a mapping, as JSON."""
    what = 'the variables of the template, such as {"enable_thinking": false}'
    parsed = _json_object(name, value, what)
    for variable in _RESERVED:
        if variable in parsed:
            raise ConfigError(f"{name}: {variable!r} is not a variable of yours. Leave it out.")
    return json.dumps(parsed, sort_keys=True)


def _template_date(name: str, value: object) -> str:
    text = str(value)
    try:
        return text if text == "today" else datetime.date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise ConfigError(
            f"{name} is a date such as 2024-07-26, or today, got {value!r:.80}."
        ) from error


def date_of(text: str | None) -> datetime.date:
    """Return the date that a configuration names."""
    if text == "today":
        return datetime.date.today()
    return datetime.date.fromisoformat(text) if text else DEFAULT_DATE


def _json_object(name: str, value: object, what: str) -> dict[str, Any]:
    text = value
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        path = Path(value).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"{name}: no such file: {value!r}. Give a JSON file or object with {what}."
            )
        text = path.read_bytes()
    parsed = _json(name, text) if isinstance(text, (str, bytes)) else text
    if not isinstance(parsed, Mapping):
        raise ConfigError(f"{name} is a JSON object: {what}; got {value!r:.80}.")
    return dict(parsed)


def _json(name: str, text: str | bytes) -> object:
    try:
        parsed: object = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name} is not valid JSON: {error}.") from error
    return parsed
