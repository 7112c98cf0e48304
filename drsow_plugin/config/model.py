"""One model: where it comes from and how it is loaded, as frozen and checked configuration."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from drsow_plugin.config.in_memory import (
    Given,
    checked_model,
    checked_tokenizer,
    is_object,
    name_of,
)
from drsow_plugin.config.options import options_of, parse_options
from drsow_plugin.config.parse import (
    DTYPES,
    parse_date,
    parse_device_map,
    parse_dtype,
    parse_path,
    parse_quantization,
    parse_template_args,
    parse_text,
)
from drsow_plugin.errors import ConfigError
from drsow_plugin.option import Values, documented, option
from drsow_plugin.records import DEFAULT_DATE

_JSON = "JSON, or a file with it"
_PYTHON = "str | Mapping[str, Any]"


@documented
@dataclass(frozen=True)
class ModelConfig:
    """One model.

    Attributes:
        source: A Hub id, a local folder, a ``.gguf`` file or the name ``demo``.
        given: The model, engine or tokenizer, where it was given as an object; ``source`` or
            ``tokenizer`` only stands for it then.
    """

    source: str
    revision: str | None = option(None, "Branch, tag or commit of a Hub model.")
    dtype: str | None = option(
        None,
        "`float32`, `bfloat16`, `float16`, `float64`, or `auto` for the checkpoint's own.",
        unset="float32 on a CPU, else auto",
        values=Values(parse_dtype, ", ".join(f"`{name}`" for name in DTYPES), "object"),
    )
    device: str | None = option(
        None,
        "Where the weights go, such as `cuda:1`.",
        unset="the first GPU, or the CPU",
        values=Values(lambda _name, value: str(value), "text", "str"),
    )
    device_map: str | None = option(
        None,
        "An accelerate device map, such as `auto`, instead of a device.",
        values=Values(parse_device_map, "text, or JSON", _PYTHON),
    )
    attn_implementation: str | None = option(
        None,
        "As in transformers, such as `sdpa` or `flash_attention_2`.",
        "Rows are then scored one by one with it, and share no prefixes.",
    )
    quantization: str | None = option(
        None,
        "A transformers quantization config, such as "
        '`{"quant_method": "bitsandbytes", "load_in_4bit": true}`.',
        values=Values(parse_quantization, _JSON, _PYTHON),
    )
    adapter: str | None = option(
        None,
        "A PEFT adapter on top of the weights: Hub id or folder.",
        values=Values(parse_path, "Hub id or folder", "str"),
    )
    adapter_revision: str | None = option(None, "Branch, tag or commit of the adapter.")
    template: str = option(
        "tokenizer",
        "`tokenizer` (its own chat template), `none` (no chat template) or a Jinja file.",
        values=Values(parse_text, "`tokenizer`, `none` or a file", "str | None"),
    )
    template_args: str | None = option(
        None,
        'Variables of the template: JSON such as `{"enable_thinking": false}`, or a file with it.',
        values=Values(parse_template_args, _JSON, _PYTHON),
    )
    template_date: str | None = option(
        None,
        "What templates that ask for the date are told: `YYYY-MM-DD` or `today`.",
        unset=DEFAULT_DATE.isoformat(),
        values=Values(parse_date, "a date, or `today`", "str | datetime.date"),
    )
    tokenizer: str | None = option(
        None,
        "Hub id or folder of the tokenizer, where it is not with the weights.",
        "In Python also a tokenizer of transformers.",
        values=Values(parse_path, "Hub id or folder", "str | PreTrainedTokenizerBase"),
    )
    trust_remote_code: bool = option(False, "Whether code from the model's repository may run.")
    given: Given = field(default_factory=Given, repr=False)

    def weights_only(self) -> ModelConfig:
        """Return what identifies the loaded weights: all but template, tokenizer, adapter."""
        other = {name: SIDE_OPTIONS[name].default for name in (*OF_TEXTS, *_OF_ADAPTER)}
        return replace(self, given=self.given.model_only(), **other)


SIDE_OPTIONS = options_of(ModelConfig)
OF_TEXTS = ("template", "template_args", "template_date", "tokenizer")
_OF_ADAPTER = ("adapter", "adapter_revision")


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
    own = {name: options[f"{side}_{name}"] for name in SIDE_OPTIONS if f"{side}_{name}" in options}
    both = {n: options[n] for n in (SIDE_OPTIONS if shared is None else shared) if n in options}
    named = {**both, **own}
    if "template" in named and named["template"] is None:
        named["template"] = "none"  # lm-eval reads the word none as None
    named = {name: value for name, value in named.items() if value is not None}
    objects = _taken_out(side, source, named)
    if objects.has_model:
        source = name_of(source)
    if source is None or str(source) == "":
        raise ConfigError(
            f"No {side} model was given. Set {side}=… to a Hub id, a local folder, a .gguf "
            "file or 'demo'."
        )
    given = parse_options(ModelConfig, named, prefix=f"{side}_")
    if "device_map" in given and "device" not in own:
        given.pop("device", None)  # a device for both sides gives way to a device map
    if "adapter_revision" in given and "adapter" not in given:
        raise ConfigError(f"{side}_adapter_revision has no effect without {side}_adapter.")
    if given.get("template") == "none" and "template_args" in given:
        if "template_args" in own:
            raise ConfigError(f"{side}_template_args has no effect with {side}_template=none.")
        del given["template_args"]
    if "device" in given and "device_map" in given:
        raise ConfigError(f"Give {side}_device or {side}_device_map, not both.")
    return ModelConfig(source=str(source), given=objects, **given)


def _taken_out(side: str, source: object, named: dict[str, Any]) -> Given:
    """Return the objects among a model's source and options, where names then stand for them."""
    objects = Given()
    if is_object(source):
        asked = "router_model" if side == "router" else side
        objects = checked_model(asked, side, source, named, OF_TEXTS)
    if is_object(value := named.get("tokenizer")):
        objects = replace(objects, tokenizer=checked_tokenizer(f"{side}_tokenizer", value))
        named["tokenizer"] = name_of(value)
    return objects


def date_of(text: str | None) -> datetime.date:
    """Return the date that a configuration names."""
    if text == "today":
        return datetime.date.today()
    return datetime.date.fromisoformat(text) if text else DEFAULT_DATE
